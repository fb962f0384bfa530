"""Batched exact Newton in a box, damped by the Gauss-Newton matrix of reweighted least squares.

Many small fits (starts, resamples, profile points) of one law to one table run as one batch.
The step solves M s = -g with M = (1 - λ) H + λ G, where H is the exact Hessian and G the
Gauss-Newton matrix under the reweighted-least-squares majorant: λ = 1 is a reweighting step,
λ = 0 a pure Newton step; beyond 1 the diagonal of G is added (Levenberg-Marquardt). Bounds are
kept by an active set, so an optimum on a boundary is found exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..laws.base import Constraints, Surface
from .objective import Floats, Objective

_CHUNK = 12_000
_MAX_ITERATIONS = 200
_TINY = 1e-300
_ON_BOUND = 1e-12
_SHORTER = np.array([0.5, 0.2, 0.06, 0.01])
_LONGER = np.array([3.0, 10.0, 30.0])


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
    """

    surface: Surface
    observed: Floats
    objective: Objective
    origin: Floats
    mixing: Floats
    lower: Floats
    upper: Floats

    def theta(self, z: Floats) -> Floats:
        """Return solver coordinates of the law for free coordinates z."""
        return np.asarray(self.origin + z @ self.mixing.T)

    def free(self, theta: Floats) -> Floats:
        """Return the free coordinates nearest to θ, inside the box."""
        count = self.mixing.sum(axis=0)
        z = (theta - self.origin) @ self.mixing / count
        return np.asarray(np.clip(z, self.lower, self.upper))


@dataclass(frozen=True, slots=True)
class Solution:
    """Where a batch of fits ended.

    Attributes
    ----------
    z : ndarray, shape (n_batch, n_free)
    value : ndarray, shape (n_batch,)
    gradient : ndarray, shape (n_batch, n_free)
    hessian, gauss_newton : ndarray, shape (n_batch, n_free, n_free)
    converged : ndarray of bool, shape (n_batch,)
    """

    z: Floats
    value: Floats
    gradient: Floats
    hessian: Floats
    gauss_newton: Floats
    converged: NDArray[np.bool_]


def make_problem(
    surface: Surface,
    names: tuple[str, ...],
    observed: Floats,
    objective: Objective,
    constraints: Constraints,
) -> Problem:
    """Return the problem that `constraints` leave of fitting `surface` to `observed`."""
    origin = np.zeros(len(names))
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


def _evaluate_part(
    problem: Problem, surface: Surface, observed: Floats, z: Floats, weight: Floats
) -> tuple[Floats, ...]:
    """Evaluate as many members and runs as fit into the cache."""
    theta = problem.theta(z)
    predicted, jacobian = surface.derivatives(theta)
    terms = problem.objective.terms(observed, predicted, weight)
    bend = surface.curvature(theta, jacobian, terms.slope)
    if problem.mixing.shape[0] != problem.mixing.shape[1]:
        bend = problem.mixing.T @ bend @ problem.mixing
        jacobian = problem.mixing.T @ jacobian
    transposed = jacobian.swapaxes(1, 2)
    gauss = (jacobian * terms.majorant[:, None]) @ transposed
    if terms.bend is terms.majorant:
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


def minimise(
    problem: Problem,
    start: Floats,
    weight: Floats,
    *,
    damping: float = 1.0,
    tolerance: float = 1e-14,
    frozen: NDArray[np.bool_] | None = None,
    max_iterations: int = _MAX_ITERATIONS,
) -> Solution:
    """Refine every start of a batch to a local minimum in the box.

    Parameters
    ----------
    start : ndarray, shape (n_batch, n_free)
    weight : ndarray, shape (n_runs,) or (n_batch, n_runs)
        Multiplicities, one set for each member or one for all.
    damping : float
        λ of the first step: 1 for a rough start, 0 for a warm one.
    frozen : ndarray of bool, shape (n_free,)
        Coordinates that stay where they start, as in a profile.
    tolerance : float
        A fit ends after the step whose predicted decrease is below this share of its value.
    """
    z = _into_box(problem, start)
    with np.errstate(over="ignore", invalid="ignore"):
        value, gradient, hessian, gauss = evaluate(problem, z, weight)
        done = np.zeros(len(z), dtype=bool)
        perfect = _perfect(problem, weight) if weight.ndim == 1 and frozen is None else -1.0
        good = np.full(len(z), not z.shape[1])
        lam = np.full(len(z), damping)
        for _ in range(max_iterations if z.shape[1] else 0):
            live = np.flatnonzero(~done)
            if not len(live):
                break
            step, slope, convex = _step(
                problem, z[live], gradient[live], hessian[live], gauss[live], lam[live], frozen
            )
            trial = _into_box(problem, z[live] + step)
            w = weight if weight.ndim == 1 else weight[live]
            new = evaluate(problem, trial, w)
            floor = 4e-16 * value[live]
            better = new[0] <= value[live] + np.minimum(1e-4 * slope, 0.0) + floor
            small = np.max(np.abs(step) / (np.abs(trial) + 1e-3), axis=1) < 1e-13
            flat = (-slope <= tolerance * value[live] + _TINY) & (lam[live] < 0.5)
            found = np.zeros(len(live), dtype=bool)
            smooth = bool((better & convex).all())
            for lengths, wanted in ((_SHORTER, ~better & ~small), (_LONGER, ~convex & ~small)):
                if smooth or not wanted.any():
                    continue
                at = np.flatnonzero(wanted)
                best, low = _line_search(
                    problem, z[live[at]], step[at], w if w.ndim == 1 else w[at], lengths
                )
                at_hand = np.where(better[at] | found[at], new[0][at], value[live[at]])
                gain = low < at_hand
                hit = at[gain]
                if len(hit):
                    found[hit] = True
                    trial[hit] = best[gain]
                    w_hit = w if w.ndim == 1 else w[hit]
                    for array, fresh in zip(new, evaluate(problem, trial[hit], w_hit), strict=True):
                        array[hit] = fresh
            moved = better | found
            taken = live[moved]
            z[taken] = trial[moved]
            for old, fresh in zip((value, gradient, hessian, gauss), new, strict=True):
                old[taken] = fresh[moved]
            lam[live] = np.where(
                better,
                _relax(lam[live]),
                np.where(
                    found, np.clip(3.0 * lam[live], 0.1, 1.0), np.maximum(8.0 * lam[live], 0.02)
                ),
            )
            stuck = ~moved & (lam[live] > 1e12)
            ended = (better & convex & (small | flat)) | (~better & small) | stuck
            good[live] = ended & ~stuck
            done[live] = ended
            if weight.ndim == 1 and np.any(value[good & done] <= perfect):
                break
    return Solution(z, value, gradient, hessian, gauss, good)


def _perfect(problem: Problem, weight: Floats) -> float:
    """Return the objective of residuals that are rounding: no other start can do better."""
    size = 1.0 if problem.objective.name == "log-huber" else float(np.mean(problem.observed**2))
    return 1e-26 * size * float(weight.sum())


def _into_box(problem: Problem, z: Floats) -> Floats:
    """Clip to the box, and put what is within rounding of a bound onto it."""
    inside = np.where(z < problem.lower + _ON_BOUND, problem.lower, z)
    return np.where(inside > problem.upper - _ON_BOUND, problem.upper, inside)


def _line_search(
    problem: Problem, z: Floats, step: Floats, weight: Floats, lengths: Floats
) -> tuple[Floats, Floats]:
    """Return the best of several lengths along each step, and its value."""
    shape = (len(z), len(lengths), z.shape[1])
    points = _into_box(problem, z[:, None] + lengths[:, None] * step[:, None])
    w = weight if weight.ndim == 1 else np.repeat(weight, len(lengths), axis=0)
    value = values(problem, points.reshape(-1, shape[2]), w).reshape(shape[:2])
    value = np.where(np.isnan(value), np.inf, value)
    best = value.argmin(axis=1)
    rows = np.arange(len(z))
    return points[rows, best], value[rows, best]


def _relax(lam: Floats) -> Floats:
    smaller = np.where(lam > 1.0, lam / 8.0, lam * 0.1)
    return np.where(smaller < 1e-2, 0.0, smaller)


def active_set(problem: Problem, z: Floats, gradient: Floats) -> NDArray[np.bool_]:
    """Return which bounds hold a coordinate back, shape (n_batch, n_free)."""
    low = (z <= problem.lower) & (gradient > 0)
    high = (z >= problem.upper) & (gradient < 0)
    return np.asarray(low | high)


def _step(
    problem: Problem,
    z: Floats,
    gradient: Floats,
    hessian: Floats,
    gauss: Floats,
    lam: Floats,
    frozen: NDArray[np.bool_] | None = None,
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return the damped Newton step inside the box, its slope gᵀs, and where M was convex."""
    q = z.shape[1]
    on_diagonal = slice(None, None, q + 1)
    largest = np.abs(gauss).max(axis=(1, 2))[:, None]
    diagonal = np.maximum(gauss.reshape(len(z), -1)[:, on_diagonal], 1e-12 * largest) + _TINY
    blend = np.minimum(lam, 1.0)[:, None, None]
    matrix = (1.0 - blend) * hessian + blend * gauss
    if lam.max() > 1.0:
        matrix.reshape(len(z), -1)[:, on_diagonal] += np.maximum(lam - 1.0, 0.0)[:, None] * diagonal
    scale = 1.0 / np.sqrt(diagonal)
    matrix = matrix * scale[:, :, None] * scale[:, None, :]
    rhs = -gradient * scale
    bound = active_set(problem, z, gradient)
    if frozen is not None:
        bound |= frozen
    offset = np.zeros_like(z)
    step = np.zeros_like(z)
    convex = np.ones(len(z), dtype=bool)
    todo: Any = slice(None)
    for _ in range(q + 1):
        scaled, sound = _solve(matrix[todo], rhs[todo], bound[todo], offset[todo] / scale[todo])
        step[todo], convex[todo] = scaled * scale[todo], sound
        moved = z[todo] + step[todo]
        out = ((moved < problem.lower) | (moved > problem.upper)) & ~bound[todo]
        broken = out.any(axis=1)
        if not broken.any():
            break
        todo, out, moved = np.arange(len(z))[todo][broken], out[broken], moved[broken]
        edge = np.clip(moved, problem.lower, problem.upper) - z[todo]
        offset[todo] = np.where(out, edge, offset[todo])
        bound[todo] |= out
    return step, (gradient * step).sum(axis=1), convex


def _solve(
    matrix: Floats, rhs: Floats, bound: NDArray[np.bool_], offset: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """Solve for the free coordinates, the bound ones moved by `offset`.

    Where the matrix is not positive definite its eigenvalues are replaced by their sizes, so
    that the step still descends (Dauphin et al. 2014); the second result is False there.
    """
    q = rhs.shape[1]
    eye = np.eye(q)
    if bound.any():
        rhs = np.where(bound, offset, rhs - np.einsum("sij,sj->si", matrix, offset))
        free = ~bound
        matrix = np.where(free[:, :, None] & free[:, None, :], matrix, eye)
    matrix = matrix + 1e-15 * eye
    if not np.isfinite(matrix).all():
        matrix = np.nan_to_num(matrix, nan=0.0, posinf=0.0, neginf=0.0)
    convex = np.ones(len(rhs), dtype=bool)
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        convex = values[:, 0] > 1e-15
        size = np.maximum(np.abs(values), 1e-10 * np.abs(values).max(axis=1)[:, None] + 1e-300)
        repaired = (vectors * size[:, None]) @ vectors.swapaxes(1, 2)
        matrix = np.where(convex[:, None, None], matrix, repaired)
    return np.asarray(np.linalg.solve(matrix, rhs[:, :, None])[:, :, 0]), convex
