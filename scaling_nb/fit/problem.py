"""One law, table and objective as a solver sees them: value and derivatives of whole batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..laws.base import Constraints, Surface
from ..laws.least_squares import non_negative, solve_closed
from .objective import Floats, Objective

_CHUNK = 12_000


@dataclass(frozen=True, slots=True)
class Problem:
    """One law, table and objective, and which coordinates may move.

    θ = origin + z Tᵀ: a fixed parameter has no column in T, shared ones have one in common.

    Attributes
    ----------
    surface : Surface
    observed : ndarray, shape (n_runs,)
        Losses.
    objective : Objective
    origin : ndarray, shape (n_coords,)
    mixing : ndarray, shape (n_coords, n_free)
        T.
    lower, upper : ndarray, shape (n_free,)
        The box of z.
    linear : ndarray of bool, shape (n_free,)
        Free coordinates that move nothing but what the loss is linear in.
    is_free : bool
        Whether all coordinates move, so that θ = z.
    """

    surface: Surface
    observed: Floats
    objective: Objective
    origin: Floats
    mixing: Floats
    lower: Floats
    upper: Floats
    linear: NDArray[np.bool_] = field(init=False)
    is_free: bool = field(init=False)

    def __post_init__(self) -> None:
        bent = np.ones(len(self.origin), dtype=bool)
        bent[list(self.surface.linear)] = False
        object.__setattr__(self, "linear", ~self.mixing[bent].any(axis=0))
        object.__setattr__(self, "is_free", len(self.lower) == len(self.origin))

    def theta(self, z: Floats) -> Floats:
        """Return solver coordinates of the law for free coordinates z."""
        if self.is_free:
            return z
        return np.asarray(self.origin + z @ self.mixing.T)

    def free(self, theta: Floats) -> Floats:
        """Return the free coordinates nearest to θ, inside the box."""
        if not self.is_free:
            theta = (theta - self.origin) @ self.mixing / self.mixing.sum(axis=0)
        return np.asarray(np.clip(theta, self.lower, self.upper))


def make_problem(
    surface: Surface,
    names: tuple[str, ...],
    observed: Floats,
    objective: Objective,
    constraints: Constraints,
) -> Problem:
    """Return the problem that `constraints` leave of fitting `surface` to `observed`."""
    origin = np.zeros(len(names))
    if not constraints.fixed and not constraints.shared:
        mixing = np.eye(len(names))
        return Problem(surface, observed, objective, origin, mixing, surface.lower, surface.upper)
    raw = np.array([constraints.fixed.get(name, 1.0) for name in names])
    held = surface.to_theta(raw[None])[0]
    columns: list[Floats] = []
    lower: list[float] = []
    upper: list[float] = []
    shared = [names.index(name) for name in constraints.shared]
    for i, name in enumerate(names):
        if name in constraints.fixed:
            origin[i] = held[i]
        elif i not in shared or i == shared[0]:
            members = shared if i in shared else [i]
            column = np.zeros(len(names))
            column[members] = 1.0
            columns.append(column)
            lower.append(float(surface.lower[members].max()))
            upper.append(float(surface.upper[members].min()))
    mixing = np.stack(columns, axis=1) if columns else np.zeros((len(names), 0))
    return Problem(surface, observed, objective, origin, mixing, np.array(lower), np.array(upper))


def evaluate(problem: Problem, z: Floats, weight: Floats) -> tuple[Floats, ...]:
    """Return value, gradient, Hessian and Gauss-Newton matrix at each z of a batch.

    Parameters
    ----------
    z : ndarray, shape (n_batch, n_free)
    weight : ndarray, shape (n_runs,) or (n_batch, n_runs)
    """
    batch, runs, q = len(z), len(problem.observed), z.shape[1]
    if batch * runs <= _CHUNK:
        return _evaluate_part(problem, problem.surface, problem.observed, z, weight)
    total = np.zeros(batch), np.zeros((batch, q)), np.zeros((batch, q, q)), np.zeros((batch, q, q))
    run_step = min(runs, _CHUNK)
    batch_step = max(1, _CHUNK // runs)
    for lo in range(0, runs, run_step):
        rows = slice(lo, lo + run_step)
        surface = problem.surface if runs <= _CHUNK else problem.surface.take(np.arange(runs)[rows])
        observed = problem.observed[rows]
        for at in range(0, batch, batch_step):
            part = slice(at, at + batch_step)
            w = weight[rows] if weight.ndim == 1 else weight[part, rows]
            found = _evaluate_part(problem, surface, observed, z[part], w)
            for array, fresh in zip(total, found, strict=True):
                array[part] += fresh
    return total


@np.errstate(divide="ignore", invalid="ignore")
def _evaluate_part(
    problem: Problem, surface: Surface, observed: Floats, z: Floats, weight: Floats
) -> tuple[Floats, ...]:
    """Evaluate as many members and runs as fit into the cache."""
    theta = problem.theta(z)
    predicted, jacobian = surface.derivatives(theta)
    terms = problem.objective.terms(observed, predicted, weight)
    bend = surface.curvature(theta, jacobian, terms.slope)
    if not problem.is_free:
        bend = problem.mixing.T @ bend @ problem.mixing
        jacobian = problem.mixing.T @ jacobian
    transposed = jacobian.swapaxes(1, 2)
    gauss = (jacobian * terms.majorant[..., None, :]) @ transposed
    if terms.residual is None:
        hessian = gauss + bend
    else:
        hessian = (jacobian * terms.bend[:, None]) @ transposed + bend
    gradient = (jacobian @ terms.slope[:, :, None])[:, :, 0]
    return terms.value.sum(axis=1), gradient, hessian, gauss


def values(problem: Problem, z: Floats, weight: Floats) -> Floats:
    """Return the objective alone at each z of a batch, shape (n_batch,)."""
    batch, runs = len(z), len(problem.observed)
    out = np.zeros(batch)
    run_step, batch_step = min(runs, _CHUNK), max(1, _CHUNK // runs)
    for lo in range(0, runs, run_step):
        rows = slice(lo, lo + run_step)
        surface = problem.surface if runs <= _CHUNK else problem.surface.take(np.arange(runs)[rows])
        for at in range(0, batch, batch_step):
            part = slice(at, at + batch_step)
            w = weight[rows] if weight.ndim == 1 else weight[part, rows]
            predicted = surface.loss(problem.theta(z[part]))
            out[part] += problem.objective.value(problem.observed[rows], predicted, w)
    return out


def trust_at(problem: Problem, z: Floats, weight: Floats) -> Floats:
    """Return the weight m that reweighted least squares gives each run, (n_batch, n_runs)."""
    return problem.objective.majorant(
        problem.observed, problem.surface.loss(problem.theta(z)), weight
    )


def project(problem: Problem, z: Floats, trust: Floats, linear: NDArray[np.bool_]) -> Floats:
    """Return z with its linear coordinates refitted, every other kept: min Σ_i m_i (L_i - L̂_i)².

    With m of :func:`trust_at` the result is exact for squared residuals, and for others a good
    approximation not far from where m was taken.

    Parameters
    ----------
    z : ndarray, shape (n_batch, n_free)
    trust : ndarray, shape (n_runs,) or (n_batch, n_runs)
        m.
    linear : ndarray of bool, shape (n_free,)
        Which to refit: some or all of :attr:`Problem.linear`, each with lower bound 0.
    """
    batch, p = len(z), int(linear.sum())
    gram, moment = np.empty((batch, p, p)), np.empty((batch, p))
    batch_step = max(1, _CHUNK // len(problem.observed))
    for at in range(0, batch, batch_step):
        part = slice(at, at + batch_step)
        fibres = fibres_at(problem, z[part], linear)
        gram[part], moment[part] = fibres.normal(trust if trust.ndim == 1 else trust[part])
    out = z.copy()
    out[:, linear] = coefficients(gram, moment)
    return out


@cache
def lattice(low: tuple[float, ...], high: tuple[float, ...], points: int) -> Floats:
    """Return places that are evenly spaced in their logarithms, (points^n_axes, n_axes).

    Most fits have the same, and making them takes longer than what they are for.
    """
    axes = [np.geomspace(lo, hi, points) for lo, hi in zip(low, high, strict=True)]
    places = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)
    places.setflags(write=False)
    return places


class Fibres(NamedTuple):
    """Where all coordinates stay but linear ones c: L̂ = L - rest + c basis, for a batch of points.

    Attributes
    ----------
    basis : ndarray, shape (n_batch, n_linear, n_runs)
    rest : ndarray, shape (n_batch, n_runs)
        What c has to explain of the losses L.
    """

    basis: Floats
    rest: Floats

    def normal(self, trust: Floats) -> tuple[Floats, Floats]:
        """Return Gram matrix and moments of least squares with weights m, one row or a batch."""
        weighted = self.basis * (trust if trust.ndim == 1 else trust[:, None])
        gram = weighted @ self.basis.swapaxes(1, 2)
        return gram, (weighted @ self.rest[:, :, None])[:, :, 0]

    def predict(self, observed: Floats, c: Floats) -> Floats:
        """Return L̂ at linear coordinates c, shape (n_batch, n_linear)."""
        return np.asarray(observed - self.rest + (c[:, None] @ self.basis)[:, 0])


def fibres_at(problem: Problem, z: Floats, linear: NDArray[np.bool_]) -> Fibres:
    """Return the fibre of the linear coordinates through each z."""
    predicted, jacobian = problem.surface.derivatives(problem.theta(z))
    basis = jacobian[:, linear] if problem.is_free else problem.mixing.T[linear] @ jacobian
    return Fibres(basis, problem.observed - predicted + (z[:, None, linear] @ basis)[:, 0])


def coefficients(gram: Floats, moment: Floats) -> Floats:
    """Solve normal equations (n_batch, p, p) and (n_batch, p) for coefficients ≥ 0."""
    # Each coefficient in the unit of its own column: closed forms lose digits otherwise.
    unit = np.sqrt(np.maximum(np.einsum("spp->sp", gram), 1e-300))
    gram = gram / unit[:, :, None] / unit[:, None, :]
    # A grid runs along the last axis there.
    along = np.ascontiguousarray(np.moveaxis(gram, 0, -1))
    best = non_negative(along, np.ascontiguousarray((moment / unit).T), [None] * len(along))
    return np.asarray(best.coefficients() / unit)


def coefficients_of(kept: NDArray[np.bool_], gram: Floats, moment: Floats) -> Floats:
    """Solve normal equations for the coefficients `kept`, (n_batch, p); others are zero.

    One that would be negative is zero as well, which is then no longer the least.
    """
    unit = kept / np.sqrt(np.maximum(np.einsum("spp->sp", gram), 1e-300))
    along = np.ascontiguousarray(np.moveaxis(gram * (unit[:, :, None] * unit[:, None, :]), 0, -1))
    # What is left out stands alone; the rest is kept from being singular.
    np.einsum("pps->ps", along)[...] += np.where(kept, 1e-9, 1.0).T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = solve_closed(along, (moment * unit).T, range(len(along)))
    return np.asarray(np.maximum(np.stack(found, axis=1) * unit, 0.0))
