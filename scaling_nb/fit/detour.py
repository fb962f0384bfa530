"""Where the straight Newton step fails: the best of other lengths, dampings and curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .boxed_step import State, Step, damped_step, into_box
from .objective import Floats
from .problem import Problem, project, trust_at, values

SHORTER = np.array([0.5, 0.2, 0.06, 0.01])
LONGER = np.array([3.0, 10.0, 30.0, 100.0])
_DAMPINGS = np.array([0.0, 0.1, 1.0])
_LENGTHS = np.array([1.0, 0.3, 0.05])
_ALL_DAMPINGS = np.array([0.0, 0.01, 0.1, 1.0, 1.0 + 1e-6, 1.0 + 1e-3])
_ALL_LENGTHS = np.array([3.0, 1.0, 0.3, 0.1, 0.01, 0.001])
_CRAWL = 0.02
"""Share of a step's predicted decrease below which a line search is crawling."""
SLIGHT = 0.05
"""Damping as good as none: with three times as much, slow resamples take half as long again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A step of a batch and what came of it.

    Attributes
    ----------
    problem : Problem
    weight : ndarray, shape (n_runs,) or (n_batch, n_runs)
    frozen : ndarray of bool or None
    state : State
        Before the step.
    move : Step
    value : ndarray, shape (n_batch,)
        After the step.
    lam, after : ndarray, shape (n_batch,)
        Damping of the step, and of the next.
    better : ndarray of bool, shape (n_batch,)
        Where the step was good enough.
    floor : ndarray, shape (n_batch,)
        Differences of the objective that are rounding.
    """

    problem: Problem
    weight: Floats
    frozen: NDArray[np.bool_] | None
    state: State
    move: Step
    value: Floats
    lam: Floats
    after: Floats
    better: NDArray[np.bool_]
    floor: Floats


def improve(
    attempt: Attempt, wanting: NDArray[np.bool_], *, fine: bool, crawl: float = _CRAWL
) -> tuple[NDArray[np.bool_], Floats]:
    """Search further for the members `wanting` it.

    Return for which something lower was found, and where it is, shape (n_found, n_free). There
    the damping of the next step is overwritten. Beyond the step's own line is searched where
    less than a share `crawl` of its predicted decrease was found.
    """
    state, move = attempt.state, attempt.move
    found, value, z = np.zeros(len(wanting), dtype=bool), attempt.value.copy(), state.z.copy()
    for along in (True, False):
        at = np.flatnonzero(wanting)
        if not len(at):
            break
        best, low, used = _along(attempt, at) if along else _around(attempt, at, fine=fine)
        at_hand = np.where(attempt.better[at] | found[at], value[at], state.value[at])
        gain = low < at_hand - attempt.floor[at]
        hit = at[gain]
        found[hit], value[hit], z[hit] = True, low[gain], best[gain]
        attempt.after[hit] = used[gain]
        # A step of which only a small part is good crawls along a bent valley.
        share = 1.0 if fine else crawl
        wanting = wanting & ~attempt.better & (state.value - value < -share * move.slope)
    return found, z[found]


def relax(lam: Floats) -> Floats:
    """Return the damping after a good step: three times less, and none at all once it is small."""
    less = np.where(lam < SLIGHT, 0.0, 0.3 * lam)
    if lam.max() <= 1.0:
        return less
    beyond = np.where(lam > 1.0 + 1e-9, 1.0 + 0.1 * (lam - 1.0), 1.0)
    return np.where(lam > 1.0, beyond, less)


def stiffen(lam: Floats) -> Floats:
    """Return the damping after a failure: a reweighting step first, and only then beyond it."""
    return np.where(
        lam < 1.0,
        np.minimum(np.maximum(8.0 * lam, 0.02), 1.0),
        1.0 + np.maximum(100.0 * (lam - 1.0), 1e-2),
    )


def _along(attempt: Attempt, at: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
    """Return the best of several lengths of each step, its value, and the damping to go on with.

    Shorter ones where the step failed, else longer ones: where the matrix was repaired its
    length means little.
    """
    z, step = attempt.state.z[at], attempt.move.step[at]
    lam, better = attempt.lam[at], attempt.better[at]
    lengths = np.where(better[:, None], LONGER, SHORTER)
    points = into_box(attempt.problem, z[:, None] + lengths[:, :, None] * step[:, None])
    best, low, _ = _lowest(attempt.problem, points, _rows(attempt.weight, at))
    return best, low, np.where(better, relax(lam), np.clip(3.0 * lam, 0.1, np.maximum(1.0, lam)))


def _around(attempt: Attempt, at: NDArray[np.intp], *, fine: bool) -> tuple[Floats, Floats, Floats]:
    """Return the best over several dampings and lengths, its value and its damping.

    Where some coordinates are linear the points lie on the curve on which these are refitted:
    a valley that bends in all coordinates is straight in the others.
    """
    problem, frozen = attempt.problem, attempt.frozen
    z, weight = attempt.state.z[at], _rows(attempt.weight, at)
    batch, q = z.shape
    dampings, lengths = (_ALL_DAMPINGS, _ALL_LENGTHS) if fine else (_DAMPINGS, _LENGTHS)
    m = len(dampings)
    step = damped_step(
        problem, attempt.state.take(np.repeat(at, m)), np.tile(dampings, batch), frozen
    ).step
    points = into_box(
        problem, z[:, None, None] + lengths[:, None] * step.reshape(batch, m, 1, q)
    ).reshape(batch, -1, q)
    linear = problem.linear if frozen is None else problem.linear & ~frozen
    if linear.any():
        k = points.shape[1]
        trust = np.repeat(trust_at(problem, z, weight), k, axis=0)
        flat = project(problem, points.reshape(-1, q), trust, linear)
        points = into_box(problem, flat).reshape(batch, k, q)
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


def _rows(weight: Floats, at: NDArray[np.intp]) -> Floats:
    return weight if weight.ndim == 1 else weight[at]
