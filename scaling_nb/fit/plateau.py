"""Where a term is zero its exponent moves nothing: with which one each resample begins.

A resample may want the term back, at one exponent and not at another. From a steep exponent there
may be no way down, and from a flat one it is long: as α goes to 0, A/N^α is a constant and a
multiple of ln N, between which only their sum is felt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .objective import Floats
from .problem import Problem, coefficients, fibres_at, lattice, trust_at

_POINTS = 12
"""Exponents that are tried, evenly spaced in their logarithms over the box."""
_MOST = 2
_ROUNDING = 1e-12


def inert_at(problem: Problem, z: Floats) -> NDArray[np.intp]:
    """Return the bounded coordinates that move no prediction at z, shape (n_free,)."""
    _, jacobian = problem.surface.derivatives(problem.theta(z[None]))
    moves = (problem.mixing.T @ jacobian[0]).any(axis=1)
    bounded = (problem.lower > 0.0) & (problem.upper < np.inf)
    return np.flatnonzero(~moves & bounded & ~problem.linear)


def begin(problem: Problem, start: Floats, weight: Floats) -> Floats:
    """Return where each resample begins, shape (n_samples, n_free).

    That is `start`; but the exponent of a term that is zero there is, of those of a lattice, the
    one that serves the resample best, and linear coordinates are refitted, which brings the term
    back where that is of use. Where it is of none the exponent stays what it was.

    Parameters
    ----------
    start : ndarray, shape (n_free,)
    weight : ndarray, shape (n_samples, n_runs)
    """
    z = np.tile(start, (len(weight), 1))
    inert, linear = inert_at(problem, start), problem.linear
    if not linear.any() or not 1 <= len(inert) <= _MOST:
        return z
    low, high = problem.lower[inert].tolist(), problem.upper[inert].tolist()
    tried = np.vstack([start[inert], lattice(tuple(low), tuple(high), _POINTS)])
    points = np.tile(start, (len(tried), 1))
    points[:, inert] = tried
    # All resamples have these points in common: their normal equations are one matrix product.
    basis, rest = fibres_at(problem, points, linear)
    trust = weight * trust_at(problem, start[None], np.ones(weight.shape[1]))
    products = basis[:, :, None] * np.concatenate([basis, rest[:, None]], axis=1)[:, None]
    n, p = len(tried), basis.shape[1]
    normal = (trust @ products.reshape(-1, weight.shape[1]).T).reshape(-1, p, p + 1)
    gram, moment = normal[:, :, :p], normal[:, :, p]
    c = coefficients(gram, moment)
    cost = (((gram @ c[:, :, None])[:, :, 0] - 2.0 * moment) * c).sum(axis=1).reshape(-1, n)
    best = cost.argmin(axis=1)
    best[cost[:, 0] <= cost.min(axis=1) + _ROUNDING * np.abs(cost[:, 0])] = 0
    z[:, inert] = tried[best]
    z[:, linear] = c.reshape(-1, n, p)[np.arange(len(z)), best]
    return z
