"""The descent of :mod:`.newton` for the start of a single fit, or its few starts one by one.

There the calls are what costs and not the numbers: one member as scalars, with no more matrices
than its next step needs, takes .6 of the time of a batch of one (``benchmarks/fit.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg.lapack import dposv

from .boxed_step import State, Step, active_set, damped_step, into_box
from .detour import Attempt, improve, relax, stiffen
from .newton import (
    LEVEL,
    MAX_ITERATIONS,
    PATIENCE,
    PERFECT,
    POLISH,
    SMALL,
    STUCK,
    TINY,
    Solution,
    minimise,
    rounding,
    size_of,
)
from .objective import Floats
from .problem import Problem

_MOST_RUNS = 12_000
"""Runs above which the numbers cost more than the calls."""
_NEAR = 0.03
"""Distance to a minimum, over its size, within which a start is taken to lead there: with three
times as much some minima that lie side by side on few runs are missed."""
_NEARLY_AS_LOW = 1.01
_OFF_BOUND = 1e-9


class Point:
    """A place in the box: the objective and its gradient there, and its matrices on demand.

    Attributes
    ----------
    z, gradient : ndarray, shape (n_free,)
    value : float
    """

    __slots__ = ("_bend", "_curved", "_jacobian", "_majorant", "_parts", "gradient", "value", "z")

    def __init__(self, problem: Problem, z: Floats, weight: Floats) -> None:
        theta = problem.theta(z[None])
        predicted, jacobian = problem.surface.derivatives(theta)
        terms = problem.objective.terms(problem.observed, predicted, weight)
        self.z, self.value = z, float(terms.value.sum())
        self._bend, self._majorant = terms.bend, terms.majorant
        self._curved: Floats | None = None
        self._parts = problem, theta, jacobian, terms.slope
        self._jacobian = jacobian[0] if problem.is_free else problem.mixing.T @ jacobian[0]
        self.gradient = self._jacobian @ terms.slope[0]

    def _curvature(self) -> Floats:
        """Return what the Hessian has beyond the Gauss-Newton form."""
        if self._curved is None:
            problem, theta, jacobian, slope = self._parts
            curved = problem.surface.curvature(theta, jacobian, slope)[0]
            if not problem.is_free:
                curved = problem.mixing.T @ curved @ problem.mixing
            self._curved = curved
        return self._curved

    def matrix(self, lam: float) -> Floats:
        """Return (1 - λ) H + λ G, G alone beyond λ = 1; shape (n_free, n_free)."""
        if lam >= 1.0:
            return np.asarray((self._jacobian * self._majorant) @ self._jacobian.T)
        if lam == 0.0:
            return np.asarray((self._jacobian * self._bend) @ self._jacobian.T + self._curvature())
        bend = (1.0 - lam) * self._bend + lam * self._majorant
        curved = (1.0 - lam) * self._curvature()
        return np.asarray((self._jacobian * bend) @ self._jacobian.T + curved)

    def state(self) -> State:
        """Return the same as a batch of one."""
        parts = self.z, self.value, self.gradient, self.matrix(0.0), self.matrix(1.0)
        return State(*(np.array(part)[None] for part in parts))


def refine(problem: Problem, starts: Floats, weight: Floats) -> Solution:
    """Refine starts to the local minima in the box that they lead to.

    A start is given up where it comes near a known minimum, and where one passes through all
    runs, so that no other can be better, the rest are left out.
    """
    if len(problem.observed) > _MOST_RUNS:
        return minimise(problem, starts, weight)
    ends: list[Point] = []
    good: list[bool] = []
    enough = PERFECT * float(size_of(problem, weight))
    for start in starts:
        end, converged = descend(problem, start, weight, known=ends)
        if end in ends:
            continue
        ends.append(end)
        good.append(converged)
        if converged and end.value <= enough:
            break
    states = (end.state() for end in ends)
    return Solution(*State(*map(np.concatenate, zip(*states, strict=True))), np.array(good))


def descend(
    problem: Problem,
    start: Floats,
    weight: Floats,
    *,
    damping: float = 1.0,
    tolerance: float = 1e-12,
    known: Sequence[Point] = (),
) -> tuple[Point, bool]:
    """Refine one start to a local minimum in the box; return it, and whether it is one.

    Parameters
    ----------
    start : ndarray, shape (n_free,)
    weight : ndarray, shape (n_runs,)
    damping, tolerance : float
        As of :func:`.newton.minimise`.
    known : sequence of Point
        Minima to end at as soon as one is near.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        at = Point(problem, into_box(problem, start), weight)
        inside = _is_inside(problem, at.z)
        size = float(size_of(problem, weight))
        lam, polish = damping, 0
        for iteration in range(MAX_ITERATIONS if len(start) else 0):
            step, slope, convex = _step(problem, at, lam, inside=inside)
            z = at.z + step
            still_inside = _is_inside(problem, z)
            new = Point(problem, z if still_inside else into_box(problem, z), weight)
            floor = rounding(size, at.value)
            better = new.value <= at.value + min(1e-4 * slope, 0.0) + floor
            small = bool((np.abs(step) / (np.abs(new.z) + 1e-3)).max() < SMALL)
            flat = -slope <= tolerance * at.value + TINY and lam < 0.5
            after = _next(lam, better=better)
            moved, stuck, ended = better, False, better and convex and (small or flat)
            if not ((better and convex) or small):
                attempt = Attempt(
                    problem, weight, None, at.state(),
                    Step(step[None], np.array([slope]), np.array([convex])),
                    *(np.array([x]) for x in (new.value, lam, after, better, floor)),
                )  # fmt: skip
                _, found = improve(attempt, np.array([True]), fine=iteration >= PATIENCE, crawl=0.0)
                if len(found):
                    moved, new, after = True, Point(problem, found[0], weight), attempt.after[0]
                    still_inside = _is_inside(problem, new.z)
            if moved:
                at, inside = new, still_inside
                for end in known:
                    if _is_near(at, end):
                        return end, True
            else:
                ended = small or -slope <= max(LEVEL * at.value, floor)
                stuck = after > STUCK
            lam = float(after)
            # Residuals that are rounding never get flat.
            polish += at.value <= PERFECT * size
            if ended or stuck or polish > POLISH:
                return at, not stuck
    return at, not len(start)


def _step(problem: Problem, at: Point, lam: float, *, inside: bool) -> tuple[Floats, float, bool]:
    """Return the damped step, its slope, and whether the damped matrix was convex.

    The straight way where no further bound is met.
    """
    if lam <= 1.0:
        matrix, rhs = at.matrix(lam), -at.gradient
        free = None if inside else ~active_set(problem, at.z, at.gradient)
        if free is None or free.all() or not free.any():
            _, step, failure = dposv(matrix, rhs)
        else:
            step = np.zeros(len(rhs))
            _, step[free], failure = dposv(matrix[np.ix_(free, free)], rhs[free])
        z = at.z + step
        if not failure and (z >= problem.lower).all() and (z <= problem.upper).all():
            return step, float(at.gradient @ step), True
    move = damped_step(problem, at.state(), np.array([lam]))
    return move.step[0], float(move.slope[0]), bool(move.convex[0])


def _is_inside(problem: Problem, z: Floats) -> bool:
    off = _OFF_BOUND
    return bool((z > problem.lower + off).all() and (z < problem.upper - off).all())


def _is_near(at: Point, end: Point) -> bool:
    if at.value > _NEARLY_AS_LOW * end.value:
        return False
    return bool((np.abs(at.z - end.z) <= _NEAR * (np.abs(end.z) + 1e-3)).all())


def _next(lam: float, *, better: bool) -> float:
    if better and lam == 0.0:
        return 0.0
    return float((relax if better else stiffen)(np.array([lam]))[0])
