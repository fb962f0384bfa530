"""One damped Newton step of a whole batch inside a box: the linear algebra of :mod:`.newton`."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

from .objective import Floats
from .problem import Problem, evaluate

_TINY = 1e-300
ON_BOUND = 1e-12
RIDGE = 1e-15


class State(NamedTuple):
    """Where the members of a batch stand.

    Attributes
    ----------
    z : ndarray, shape (n_batch, n_free)
    value : ndarray, shape (n_batch,)
    gradient : ndarray, shape (n_batch, n_free)
    hessian, gauss : ndarray, shape (n_batch, n_free, n_free)
    """

    z: Floats
    value: Floats
    gradient: Floats
    hessian: Floats
    gauss: Floats

    def take(self, rows: NDArray[Any]) -> Self:
        """Return some of the members."""
        return type(self)(*(array[rows] for array in self))

    def put(self, rows: NDArray[Any], members: State) -> None:
        """Write `members` over some of these."""
        for old, fresh in zip(self, members, strict=True):
            old[rows] = fresh


class Step(NamedTuple):
    """A step of each member, its slope gᵀs, and where the damped matrix was convex."""

    step: Floats
    slope: Floats
    convex: NDArray[np.bool_]


def state_at(problem: Problem, z: Floats, weight: Floats) -> State:
    """Evaluate the objective and its derivatives at each z."""
    return State(z, *evaluate(problem, z, weight))


def into_box(problem: Problem, z: Floats) -> Floats:
    """Clip to the box, and put what is within rounding of a bound onto it."""
    inside = np.where(z < problem.lower + ON_BOUND, problem.lower, z)
    return np.where(inside > problem.upper - ON_BOUND, problem.upper, inside)


def active_set(problem: Problem, z: Floats, gradient: Floats) -> NDArray[np.bool_]:
    """Return which bounds hold a coordinate back, shape (n_batch, n_free)."""
    low, high = z <= problem.lower, z >= problem.upper
    on = np.asarray(low | high)
    if on.any():
        return np.asarray(low & (gradient > 0) | high & (gradient < 0))
    return on


def damped_step(
    problem: Problem, state: State, lam: Floats, frozen: NDArray[np.bool_] | None = None
) -> Step:
    """Solve M s = -g in the box, M = (1 - λ) H + λ G, beyond λ = 1 with more of G's diagonal."""
    z, gradient = state.z, state.gradient
    batch, q = z.shape
    on_diagonal = slice(None, None, q + 1)
    diagonal = state.gauss.reshape(batch, -1)[:, on_diagonal]
    inert = diagonal == 0.0
    diagonal = np.maximum(diagonal, 1e-12 * diagonal.max(axis=1, keepdims=True)) + _TINY
    scale = 1.0 / np.sqrt(diagonal)
    matrix = _blend(state, lam) * (scale[:, :, None] * scale[:, None, :])
    # In these units the diagonal of G is one.
    matrix.reshape(batch, -1)[:, on_diagonal] += np.maximum(lam - 1.0, RIDGE)[:, None]
    rhs = -gradient * scale
    # What moves no prediction, as the exponent of a term that is zero, may stay where it is.
    bound = active_set(problem, z, gradient) | inert
    if frozen is not None:
        bound |= frozen
    step, convex = _solve(matrix, rhs, bound)
    step *= scale
    moved = z + step
    out = ((moved < problem.lower) | (moved > problem.upper)) & ~bound
    if out.any():
        at = np.flatnonzero(out.any(axis=1))
        step[at], convex[at] = _stop_at_bounds(
            problem, z[at], step[at], scale[at], matrix[at], rhs[at], bound[at]
        )
    return Step(step, (gradient * step).sum(axis=1), convex)


def _stop_at_bounds(
    problem: Problem,
    z: Floats,
    step: Floats,
    scale: Floats,
    matrix: Floats,
    rhs: Floats,
    bound: NDArray[np.bool_],
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return steps that stay in the box in place of steps that leave it, and where M was convex.

    Only the bound that is met first holds: those beyond it may not be met at all.
    """
    offset, result, convex = np.zeros(z.shape), np.zeros(z.shape), np.ones(len(z), dtype=bool)
    todo, here, there = np.arange(len(z)), np.zeros(z.shape), step
    while True:
        result[todo] = there
        moved = z[todo] + there
        out = ((moved < problem.lower) | (moved > problem.upper)) & ~bound[todo]
        broken = out.any(axis=1)
        if not broken.any():
            return result, convex
        todo, out, moved = todo[broken], out[broken], moved[broken]
        here, there = here[broken], there[broken]
        edge = np.clip(moved, problem.lower, problem.upper) - z[todo]
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(out, (edge - here) / (there - here), np.inf)
        first = reach.argmin(axis=1)
        rows = np.arange(len(todo))
        here = here + np.clip(reach[rows, first], 0.0, 1.0)[:, None] * (there - here)
        offset[todo, first] = here[rows, first] = edge[rows, first]
        bound[todo, first] = True
        there, convex[todo] = _solve(
            matrix[todo], rhs[todo], bound[todo], offset[todo] / scale[todo]
        )
        there *= scale[todo]


def _blend(state: State, lam: Floats) -> Floats:
    """Return (1 - λ) H + λ G of every member, G alone beyond λ = 1."""
    most = lam.max()
    if most == 0.0:
        return state.hessian
    if most >= 1.0 and lam.min() >= 1.0:
        return state.gauss
    share = np.minimum(lam, 1.0)[:, None, None]
    return np.asarray((1.0 - share) * state.hessian + share * state.gauss)


def _solve(
    matrix: Floats, rhs: Floats, bound: NDArray[np.bool_], offset: Floats | float = 0.0
) -> tuple[Floats, NDArray[np.bool_]]:
    """Solve for the free coordinates, the bound ones moved by `offset`.

    Where the matrix is not positive definite its eigenvalues are replaced by their sizes, so
    that the step still descends (Dauphin et al. 2014); the second result is False there.
    """
    if bound.any():
        held = np.where(bound, offset, 0.0)
        rhs = np.where(bound, offset, rhs - (matrix @ held[:, :, None])[:, :, 0])
        free = ~bound
        matrix = np.where(free[:, :, None] & free[:, None, :], matrix, np.eye(rhs.shape[1]))
    convex = np.ones(len(rhs), dtype=bool)
    if len(rhs) == 1:
        # Where the time goes into calls, one is better than two.
        _, solution, failure = dposv(matrix[0], rhs[0])
        if not failure:
            return solution[None], convex
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        matrix = np.nan_to_num(matrix, nan=0.0, posinf=0.0, neginf=0.0)
        convex = _is_positive(matrix)
        values, vectors = np.linalg.eigh(matrix[~convex])
        size = np.abs(values)
        size = np.maximum(size, 1e-10 * size.max(axis=1, keepdims=True) + _TINY)
        matrix[~convex] = (vectors * size[:, None]) @ vectors.swapaxes(1, 2)
    return np.asarray(np.linalg.solve(matrix, rhs[:, :, None])[:, :, 0]), convex


def _is_positive(matrix: Floats) -> NDArray[np.bool_]:
    """Return which matrices of a batch are positive definite: all pivots of elimination are.

    For many members far cheaper than the eigenvalues of all, of which few need them.
    """
    rest, positive = matrix, np.ones(len(matrix), dtype=bool)
    for _ in range(matrix.shape[1]):
        pivot = rest[:, 0, 0]
        positive &= pivot > RIDGE
        column = rest[:, 1:, 0]
        safe = np.where(positive, pivot, 1.0)
        rest = rest[:, 1:, 1:] - column[:, :, None] * (column / safe[:, None])[:, None, :]
    return positive
