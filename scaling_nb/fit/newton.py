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

from .objective import Floats
from .problem import Problem, evaluate, project, values

_MAX_ITERATIONS = 200
_TINY = 1e-300
_ON_BOUND = 1e-12
_SHORTER = np.array([0.5, 0.2, 0.06, 0.01])
_LONGER = np.array([3.0, 10.0, 30.0, 100.0])
_DAMPINGS = np.array([0.0, 0.1, 1.0])
_LENGTHS = np.array([1.0, 0.3, 0.05])
_ALL_DAMPINGS = np.array([0.0, 0.01, 0.1, 1.0, 1.0 + 1e-6, 1.0 + 1e-3])
_ALL_LENGTHS = np.array([3.0, 1.0, 0.3, 0.1, 0.01, 0.001])
_PATIENCE = 25
"""Iterations after which every failed step is worth the finer search."""
_CRAWL = 0.02
"""Share of a step's predicted decrease below which a line search is crawling."""
_SLIGHT = 0.17
_LEVEL = 1e-12
"""Where nothing lower is found, predicted decrease over value at which nothing is missed."""
_STUCK = 1e8
_PERFECT = 1e-26
"""Objective, over that of residuals as large as the losses, that is rounding."""
_POLISH = 3


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


def minimise(
    problem: Problem,
    start: Floats,
    weight: Floats,
    *,
    damping: float = 1.0,
    tolerance: float = 1e-12,
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
        good = np.full(len(z), not z.shape[1])
        lam = np.full(len(z), damping)
        size = _size(problem, weight)
        polish = np.zeros(len(z), dtype=int)
        linear = problem.linear if frozen is None else problem.linear & ~frozen
        for iteration in range(max_iterations if z.shape[1] else 0):
            live = np.flatnonzero(~done)
            if not len(live):
                break
            step, slope, convex = _step(
                problem, z[live], gradient[live], hessian[live], gauss[live], lam[live], frozen
            )
            trial = _into_box(problem, z[live] + step)
            w = weight if weight.ndim == 1 else weight[live]
            new = evaluate(problem, trial, w)
            floor = _rounding(size if w.ndim == 1 else size[live], value[live])
            better = new[0] <= value[live] + np.minimum(1e-4 * slope, 0.0) + floor
            small = np.max(np.abs(step) / (np.abs(trial) + 1e-3), axis=1) < 1e-13
            flat = (-slope <= tolerance * value[live] + _TINY) & (lam[live] < 0.5)
            found = np.zeros(len(live), dtype=bool)
            blend = np.where(better, _relax(lam[live]), _stiffen(lam[live]))
            wanting = ~(better & convex) & ~small
            for search in (_along, _around) if wanting.any() else ():
                at = np.flatnonzero(wanting)
                if not len(at):
                    break
                here = live[at]
                w_at = w if w.ndim == 1 else w[at]
                at_hand = np.where(better[at] | found[at], new[0][at], value[here])
                if search is _along:
                    best, low, used = _along(
                        problem, z[here], step[at], w_at, lam[here], better[at]
                    )
                else:
                    state = z[here], gradient[here], hessian[here], gauss[here]
                    fine = iteration >= _PATIENCE
                    best, low, used = _around(problem, state, w_at, linear, frozen, fine=fine)
                gain = low < at_hand - floor[at]
                hit = at[gain]
                if len(hit):
                    found[hit] = True
                    blend[hit] = used[gain]
                    trial[hit] = best[gain]
                    w_hit = w if w.ndim == 1 else w[hit]
                    for array, fresh in zip(new, evaluate(problem, trial[hit], w_hit), strict=True):
                        array[hit] = fresh
                # A step of which only a small part is good crawls along a bent valley.
                share = _CRAWL if iteration < _PATIENCE else 1.0
                wanting &= ~better & (value[live] - new[0] < -share * slope)
            moved = better | found
            taken = live[moved]
            z[taken] = trial[moved]
            for old, fresh in zip((value, gradient, hessian, gauss), new, strict=True):
                old[taken] = fresh[moved]
            lam[live] = blend
            level = ~moved & (-slope <= np.maximum(_LEVEL * value[live], floor))
            stuck = ~moved & (lam[live] > _STUCK)
            # Residuals that are rounding never get flat.
            exact = value[live] <= _PERFECT * (size if w.ndim == 1 else size[live])
            polish[live] += exact
            ended = (better & convex & (small | flat)) | (~better & small) | level | stuck
            ended |= polish[live] > _POLISH
            good[live] = ended & ~stuck
            done[live] = ended
            if frozen is None and weight.ndim == 1 and (good & done)[live][exact].any():
                good[live[exact]] = True
                break  # No other start can do better.
    return Solution(z, value, gradient, hessian, gauss, good)


def _size(problem: Problem, weight: Floats) -> Any:
    """Return the objective of residuals as large as the losses, one or shape (n_batch,)."""
    if problem.objective.name == "log-huber":
        return weight.sum(axis=-1)
    return weight @ problem.observed**2


def _rounding(size: Any, value: Floats) -> Floats:
    """Return by how much rounding of the predictions may move the objective."""
    return np.asarray(4e-16 * (value + np.sqrt(value * size)))


def _into_box(problem: Problem, z: Floats) -> Floats:
    """Clip to the box, and put what is within rounding of a bound onto it."""
    inside = np.where(z < problem.lower + _ON_BOUND, problem.lower, z)
    return np.where(inside > problem.upper - _ON_BOUND, problem.upper, inside)


def _along(
    problem: Problem,
    z: Floats,
    step: Floats,
    weight: Floats,
    lam: Floats,
    better: NDArray[np.bool_],
) -> tuple[Floats, Floats, Floats]:
    """Return the best of several lengths of each step, its value, and the damping to go on with.

    Shorter ones where the step failed, else longer ones: where the matrix was repaired its
    length means little.
    """
    lengths = np.where(better[:, None], _LONGER, _SHORTER)
    points = _into_box(problem, z[:, None] + lengths[:, :, None] * step[:, None])
    best, low, _ = _lowest(problem, points, weight)
    return best, low, np.where(better, _relax(lam), np.clip(3.0 * lam, 0.1, np.maximum(1.0, lam)))


def _around(
    problem: Problem,
    state: tuple[Floats, Floats, Floats, Floats],
    weight: Floats,
    linear: NDArray[np.bool_],
    frozen: NDArray[np.bool_] | None,
    *,
    fine: bool,
) -> tuple[Floats, Floats, Floats]:
    """Return the best over several dampings and lengths, its value and its damping.

    Where some coordinates are linear the points lie on the curve on which these are refitted:
    a valley that bends in all coordinates is straight in the others.
    """
    z = state[0]
    batch, q = z.shape
    dampings, lengths = (_ALL_DAMPINGS, _ALL_LENGTHS) if fine else (_DAMPINGS, _LENGTHS)
    m = len(dampings)
    tried = np.tile(dampings, batch)
    many = [np.repeat(x, m, axis=0) for x in state]
    step, _, _ = _step(problem, many[0], many[1], many[2], many[3], tried, frozen)
    points = _into_box(
        problem, z[:, None, None] + lengths[:, None] * step.reshape(batch, m, 1, q)
    ).reshape(batch, -1, q)
    k = points.shape[1]
    if linear.any():
        w = weight if weight.ndim == 1 else np.repeat(weight, k, axis=0)
        flat = project(problem, points.reshape(-1, q), np.repeat(z, k, axis=0), w, linear)
        points = _into_box(problem, flat).reshape(batch, k, q)
    best, low, which = _lowest(problem, points, weight)
    return best, low, dampings[which // len(lengths)]


def _lowest(
    problem: Problem, points: Floats, weight: Floats
) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Return each member's best point of several, its value and its place; (n_batch, k, n_free)."""
    batch, k, q = points.shape
    w = weight if weight.ndim == 1 else np.repeat(weight, k, axis=0)
    value = values(problem, points.reshape(-1, q), w).reshape(batch, k)
    value = np.where(np.isnan(value), np.inf, value)
    best = value.argmin(axis=1)
    rows = np.arange(batch)
    return points[rows, best], value[rows, best], best


def _relax(lam: Floats) -> Floats:
    """Return the damping after a good step: three times less, and none at all once it is small."""
    less = np.where(lam < _SLIGHT, 0.0, 0.3 * lam)
    beyond = np.where(lam > 1.0 + 1e-9, 1.0 + 0.1 * (lam - 1.0), 1.0)
    return np.where(lam > 1.0, beyond, less)


def _stiffen(lam: Floats) -> Floats:
    """Return the damping after a failure: a reweighting step first, and only then beyond it."""
    return np.where(
        lam < 1.0,
        np.minimum(np.maximum(8.0 * lam, 0.02), 1.0),
        1.0 + np.maximum(100.0 * (lam - 1.0), 1e-2),
    )


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
        here, there = step[todo].copy(), scaled * scale[todo]
        step[todo], convex[todo] = there, sound
        moved = z[todo] + there
        out = ((moved < problem.lower) | (moved > problem.upper)) & ~bound[todo]
        broken = out.any(axis=1)
        if not broken.any():
            break
        # Only the bound that is met first holds: those beyond it may not be met at all.
        todo, out, moved = np.arange(len(z))[todo][broken], out[broken], moved[broken]
        here, there = here[broken], there[broken]
        edge = np.clip(moved, problem.lower, problem.upper) - z[todo]
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(out, (edge - here) / (there - here), np.inf)
        first = reach.argmin(axis=1)
        rows = np.arange(len(todo))
        step[todo] = here + np.clip(reach[rows, first], 0.0, 1.0)[:, None] * (there - here)
        offset[todo, first] = step[todo, first] = edge[rows, first]
        bound[todo, first] = True
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
