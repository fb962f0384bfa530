"""Where a term is zero its exponent moves nothing: with which one each resample begins.

A resample may want the term back, at one exponent and not at another. From a steep exponent there
may be no way down, and from a flat one it is long: as α goes to 0, A/N^α is a constant and a
multiple of ln N, between which only their sum is felt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .boxed_step import ON_BOUND
from .objective import Floats
from .problem import Problem, coefficients, fibres_at, lattice, trust_at

_POINTS = 12
"""Exponents that are tried, evenly spaced in their logarithms over the box."""
_MOST = 2
_ROUNDING = 1e-12
_CHUNK = 2_000_000


def inert_at(problem: Problem, z: Floats) -> NDArray[np.intp]:
    """Return the places of the bounded coordinates that move no prediction at z."""
    _, jacobian = problem.surface.derivatives(problem.theta(z[None]))
    moves = (problem.mixing.T @ jacobian[0]).any(axis=1)
    bounded = (problem.lower > 0.0) & (problem.upper < np.inf)
    return np.flatnonzero(~moves & bounded & ~problem.linear)


def begin(problem: Problem, start: Floats, weight: Floats) -> Floats:
    """Return where each resample begins, shape (n_samples, n_free).

    That is `start`; but where a term is zero there, linear coordinates are refitted to the
    resample, and its exponent is, of those of a lattice, the one that serves best, which brings the
    term back where that is of use. Where it is of none the exponent stays what it was.

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
    trust = weight * trust_at(problem, start[None], np.ones(weight.shape[1]))
    gram, moment = _normal_equations(problem, points, trust)
    with np.errstate(all="ignore"):
        c = coefficients(gram, moment)
        # So small it would be put onto the bound.
        c[c < ON_BOUND] = 0.0
        cost = (((gram @ c[:, :, None])[:, :, 0] - 2.0 * moment) * c).sum(axis=1)
    cost = cost.reshape(len(weight), -1)
    best = np.where(np.isnan(cost), np.inf, cost).argmin(axis=1)
    best[cost[:, 0] <= cost.min(axis=1) + _ROUNDING * np.abs(cost[:, 0])] = 0
    rows = np.flatnonzero(np.isfinite(cost).all(axis=1) & weight.any(axis=1))
    z[np.ix_(rows, inert)] = tried[best[rows]]
    z[np.ix_(rows, linear)] = c.reshape(*cost.shape, -1)[rows, best[rows]]
    return z


def _normal_equations(problem: Problem, points: Floats, trust: Floats) -> tuple[Floats, Floats]:
    """Return Gram matrices and moments of the linear coordinates, resample by point.

    All resamples have the points in common: the normal equations are one matrix product.
    """
    parts = []
    p, n = int(problem.linear.sum()), trust.shape[1]
    some = max(1, _CHUNK // (n * p * (p + 1)))
    for at in range(0, len(points), some):
        basis, rest = fibres_at(problem, points[at : at + some], problem.linear)
        products = basis[:, :, None] * np.concatenate([basis, rest[:, None]], axis=1)[:, None]
        parts.append((trust @ products.reshape(-1, n).T).reshape(len(trust), -1, p, p + 1))
    normal = np.concatenate(parts, axis=1).reshape(-1, p, p + 1)
    return normal[:, :, :p], normal[:, :, p]
