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

from .boxed_step import State, damped_step, into_box, state_at
from .detour import Attempt, improve, relax, stiffen
from .objective import Floats
from .problem import Problem

MAX_ITERATIONS = 200
TINY = 1e-300
SMALL = 1e-13
PATIENCE = 25
"""Iterations after which every failed step is worth the finer search."""
LEVEL = 1e-12
"""Where nothing lower is found, predicted decrease over value at which nothing is missed."""
STUCK = 1e8
PERFECT = 1e-26
"""Objective, over that of residuals as large as the losses, that is rounding."""
POLISH = 3
NEAR = 0.03
"""Distance to a minimum, over its size, within which a start is taken to lead there: with three
times as much some minima that lie side by side on few runs are missed."""
NEARLY_AS_LOW = 1.01
SAME = 1e-9


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
    max_iterations: int = MAX_ITERATIONS,
    known: Solution | None = None,
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
    known : Solution or None
        Where each member ended from another start: it is given up as soon as it comes near.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        state = state_at(problem, into_box(problem, start), weight)
        end = State(*(np.empty_like(array) for array in state))
        batch, q = state.z.shape
        good = np.full(batch, not q)
        # What follows is of the members that have not ended.
        live, w, size = np.arange(batch), weight, size_of(problem, weight)
        lam, polish = np.full(batch, damping), np.zeros(batch, dtype=int)
        ends = None if known is None else (known.z, known.value)
        for iteration in range(max_iterations if q else 0):
            move = damped_step(problem, state, lam, frozen)
            new = state_at(problem, into_box(problem, state.z + move.step), w)
            floor = rounding(size, state.value)
            better = new.value <= state.value + np.minimum(1e-4 * move.slope, 0.0) + floor
            small = (np.abs(move.step) / (np.abs(new.z) + 1e-3)).max(axis=1) < SMALL
            flat = (-move.slope <= tolerance * state.value + TINY) & (lam < 0.5)
            sound = better & move.convex
            moved, ended = better, sound & (small | flat)
            after = relax(lam) if better.all() else np.where(better, relax(lam), stiffen(lam))
            wanting = ~(sound | small)
            if wanting.any():
                attempt = Attempt(
                    problem, w, frozen, state, move, new.value, lam, after, better, floor
                )
                found, z = improve(attempt, wanting, fine=iteration >= PATIENCE)
                if len(z):
                    new.put(found, state_at(problem, z, w if w.ndim == 1 else w[found]))
                    moved = better | found
            stuck = ~moved & (after > STUCK)
            if moved.all():
                state = new
            else:
                level = -move.slope <= np.maximum(LEVEL * state.value, floor)
                ended |= ~moved & (small | level) | stuck
                state.put(moved, new.take(moved))
            lam = after
            # Residuals that are rounding never get flat.
            exact = state.value <= PERFECT * size
            polish += exact
            ended |= polish > POLISH
            if ends is not None:
                ended |= _is_near(state, *ends)
            if not ended.any():
                continue
            good[live] = ended & ~stuck
            done = ended.all()
            if frozen is None and weight.ndim == 1 and (good[live] & exact).any():
                good[live[exact]] = done = True  # No other start can do better.
            if done:
                break
            end.put(live, state)
            rest = ~ended
            live, state, lam, polish = live[rest], state.take(rest), lam[rest], polish[rest]
            if weight.ndim == 2:
                w, size = w[rest], size[rest]
            if ends is not None:
                ends = ends[0][rest], ends[1][rest]
        end.put(live, state)
    return Solution(*end, good)


def _is_near(state: State, z: Floats, value: Floats) -> NDArray[np.bool_]:
    """Return which members are near a minimum of theirs, and not lower: they lead there."""
    near = (np.abs(state.z - z) <= NEAR * (np.abs(z) + 1e-3)).all(axis=1)
    low, high = (1.0 - SAME) * value, NEARLY_AS_LOW * value
    return np.asarray(near & (low <= state.value) & (state.value <= high))


def size_of(problem: Problem, weight: Floats) -> Any:
    """Return the objective of residuals as large as the losses, one or shape (n_batch,)."""
    if problem.objective.name == "log-huber":
        return weight.sum(axis=-1)
    return weight @ problem.observed**2


def rounding(size: Any, value: Any) -> Any:
    """Return by how much rounding of the predictions may move the objective."""
    return 4e-16 * (value + np.sqrt(value * size))
