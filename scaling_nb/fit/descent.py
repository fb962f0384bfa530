"""The descent of :mod:`.newton` for the start of a single fit, or its few starts one by one.

There the calls are what costs and not the numbers: one member as scalars, with no more matrices
than its next step needs, takes .6 of the time of a batch of one (``benchmarks/fit.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from scipy.linalg.lapack import dposv

from .boxed_step import ON_BOUND, RIDGE, State, Step
from .detour import LONGER, SHORTER, SLIGHT, Attempt, improve, relax, stiffen
from .newton import (
    LEVEL,
    MAX_ITERATIONS,
    NEAR,
    NEARLY_AS_LOW,
    PATIENCE,
    PERFECT,
    POLISH,
    SAME,
    SMALL,
    STUCK,
    TINY,
    Solution,
    minimise,
    rounding,
    size_of,
)
from .objective import Floats
from .problem import Problem, values

_MOST_RUNS = 12_000
"""Runs above which the numbers cost more than the calls."""
_CLOSE = 0.01
"""As :data:`.newton.NEAR`, to where an earlier start passed: with twice as much some second minima
are missed."""


class Box(NamedTuple):
    """The box as plain numbers: a handful is compared faster one by one than by NumPy."""

    lower: list[float]
    upper: list[float]

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Return the box of a problem."""
        return cls(problem.lower.tolist(), problem.upper.tolist())

    def clip(self, z: Floats) -> Floats:
        """Put what is outside, or within rounding of a bound, onto the bound."""
        sides = list(zip(z.tolist(), self.lower, self.upper, strict=True))
        if all(lo + ON_BOUND <= x <= hi - ON_BOUND for x, lo, hi in sides):
            return z
        return np.array(
            [lo if x < lo + ON_BOUND else hi if x > hi - ON_BOUND else x for x, lo, hi in sides]
        )

    def held(self, at: Point) -> list[int]:
        """Return the coordinates that a bound holds back."""
        sides = zip(at.z.tolist(), at.gradient.tolist(), self.lower, self.upper, strict=True)
        return [
            i
            for i, (x, g, lo, hi) in enumerate(sides)
            if (x <= lo and g > 0.0) or (x >= hi and g < 0.0)
        ]

    def first_met(
        self, z: Floats, here: Floats, there: Floats, held: Sequence[int]
    ) -> tuple[float, int, float] | None:
        """Return how far a free coordinate gets from here to there, which, and where it stops.

        `here` and `there` are steps from z; None where no bound is met.
        """
        first = None
        ways = zip(z.tolist(), here.tolist(), there.tolist(), self.lower, self.upper, strict=True)
        for i, (x, a, b, lo, hi) in enumerate(ways):
            if lo <= x + b <= hi or i in held:
                continue
            edge = (lo if x + b < lo else hi) - x
            reach = min(max((edge - a) / (b - a), 0.0), 1.0) if a != b else 0.0
            if first is None or reach < first[0]:
                first = reach, i, edge
        return first


class Point:
    """A place in the box: the objective and its gradient there, and its matrices on demand.

    Attributes
    ----------
    z, gradient : ndarray, shape (n_free,)
    value : float
    """

    __slots__ = ("_curved", "_jacobian", "_parts", "_terms", "gradient", "value", "z")

    def __init__(self, problem: Problem, z: Floats, weight: Floats) -> None:
        theta = problem.theta(z[None])
        predicted, jacobian = problem.surface.derivatives(theta)
        # Arrays of one axis: to broadcast against an axis of one takes twice as long.
        terms = problem.objective.terms(problem.observed, predicted[0], weight)
        self.z, self.value = z, float(terms.value.sum())
        self._curved: Floats | None = None
        self._parts, self._terms = (problem, theta, jacobian), terms
        self._jacobian = jacobian[0] if problem.is_free else problem.mixing.T @ jacobian[0]
        self.gradient = self._jacobian @ terms.slope

    def _curvature(self) -> Floats:
        """Return what the Hessian has beyond the Gauss-Newton form."""
        if self._curved is None:
            problem, theta, jacobian = self._parts
            curved = problem.surface.curvature(theta, jacobian, self._terms.slope[None])[0]
            if not problem.is_free:
                curved = problem.mixing.T @ curved @ problem.mixing
            self._curved = curved
        return self._curved

    def matrix(self, lam: float) -> Floats:
        """Return (1 - λ) H + λ G, beyond λ = 1 G with more of its diagonal; (n_free, n_free)."""
        terms, jacobian = self._terms, self._jacobian
        if lam >= 1.0:
            gauss = np.asarray((jacobian * terms.majorant) @ jacobian.T)
            return gauss if lam == 1.0 else gauss + (lam - 1.0) * np.diag(gauss.diagonal())
        if lam == 0.0:
            return np.asarray((jacobian * terms.bend) @ jacobian.T + self._curvature())
        bend = (1.0 - lam) * terms.bend + lam * terms.majorant
        return np.asarray((jacobian * bend) @ jacobian.T + (1.0 - lam) * self._curvature())

    def state(self) -> State:
        """Return the same as a batch of one."""
        parts = self.z, self.value, self.gradient, self.matrix(0.0), self.matrix(1.0)
        return State(*(np.array(part)[None] for part in parts))


class Tried(NamedTuple):
    """A step from a place, and what came of it: as :class:`.detour.Attempt`, of one."""

    at: Point
    step: Floats
    slope: float
    convex: bool
    lam: float
    new: Point
    after: float
    better: bool
    floor: float


class Trails:
    """Where the starts of one fit passed, and where that led: who comes by ends there as well.

    Comes by is who is as near and as low, but not lower than that end. Only where linear
    coordinates bind a place to its exponents does passing count; elsewhere the ends alone do.

    Attributes
    ----------
    ends : list of Point
    """

    __slots__ = (
        "_as_low", "_floor", "_laid", "_leads_to", "_path", "_places", "_trodden", "_within", "ends"
    )  # fmt: skip

    def __init__(self, problem: Problem) -> None:
        self.ends: list[Point] = []
        self._laid = bool(problem.linear.any())
        self._path: list[tuple[Floats, float]] = []
        self._trodden: list[tuple[Floats, float, float, Point]] = []
        self._leads_to: Sequence[Point] = ()
        self._places = self._within = self._as_low = self._floor = np.empty(0)

    def meet(self, at: Point) -> Point | None:
        """Return the end of an earlier start that passed here; note that this one does."""
        if self._laid:
            self._path.append((at.z, at.value))
        if not self._trodden:
            return None
        near = (np.abs(at.z - self._places) <= self._within).all(axis=1)
        near &= (self._floor <= at.value) & (at.value <= self._as_low)
        first = int(near.argmax())
        return self._leads_to[first] if near[first] else None

    def close(self, end: Point, *, converged: bool) -> bool:
        """Note that the present start ends here; return whether it is the first to.

        To an end that has not `converged` no other is led.
        """
        path, self._path = self._path, []
        if converged:
            self._trodden += [(z, value, _CLOSE, end) for z, value in path]
            self._trodden.append((end.z, end.value, NEAR, end))
            z, value, reach, self._leads_to = zip(*self._trodden, strict=True)
            self._places = np.array(z)
            self._within = np.array(reach)[:, None] * (np.abs(self._places) + 1e-3)
            self._as_low = NEARLY_AS_LOW * np.array(value)
            self._floor = (1.0 - SAME) * np.array([at.value for at in self._leads_to])
        if end in self.ends:
            return False
        self.ends.append(end)
        return True


def refine(problem: Problem, starts: Floats, weight: Floats) -> Solution:
    """Refine starts to the local minima in the box that they lead to.

    A start is given up where it comes by where another passed (:class:`Trails`), and where one
    passes through all runs, so that no other can be better, the rest are left out.
    """
    if len(problem.observed) > _MOST_RUNS:
        return minimise(problem, starts, weight)
    trails, good = Trails(problem), []
    enough = PERFECT * float(size_of(problem, weight))
    for start in starts:
        end, converged = descend(problem, start, weight, trails=trails)
        if trails.close(end, converged=converged):
            good.append(converged)
            if converged and end.value <= enough:
                break
    states = (end.state() for end in trails.ends)
    return Solution(*State(*map(np.concatenate, zip(*states, strict=True))), np.array(good))


def descend(
    problem: Problem,
    start: Floats,
    weight: Floats,
    *,
    damping: float = 1.0,
    tolerance: float = 1e-12,
    trails: Trails | None = None,
) -> tuple[Point, bool]:
    """Refine one start to a local minimum in the box; return it, and whether it is one.

    Parameters
    ----------
    start : ndarray, shape (n_free,)
    weight : ndarray, shape (n_runs,)
    damping, tolerance : float
        As of :func:`.newton.minimise`.
    trails : Trails or None
        Of earlier starts, to end where one of them did as soon as its trail is met.
    """
    box = Box.of(problem)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        at = Point(problem, box.clip(start), weight)
        size = float(size_of(problem, weight))
        lam, polish = damping, 0
        for iteration in range(MAX_ITERATIONS if len(start) else 0):
            step, slope, convex = _step(box, at, lam)
            new = Point(problem, box.clip(at.z + step), weight)
            floor = float(rounding(size, at.value))
            better = new.value <= at.value + min(1e-4 * slope, 0.0) + floor
            small = _is_within(SMALL, step, new.z)
            flat = -slope <= tolerance * at.value + TINY and lam < 0.5
            after = _next(lam, better=better)
            moved, stuck, ended = better, False, better and convex and (small or flat)
            if not ((better and convex) or small):
                tried = Tried(at, step, slope, convex, lam, new, after, better, floor)
                further = _further(problem, tried, weight, fine=iteration >= PATIENCE)
                if further is not None:
                    moved, (new, after) = True, further
            if moved:
                at = new
                if trails is not None and (end := trails.meet(at)) is not None:
                    return end, True
            else:
                ended = small or -slope <= max(LEVEL * at.value, floor)
                stuck = after > STUCK
            lam = after
            # Residuals that are rounding never get flat.
            polish += at.value <= PERFECT * size
            if ended or stuck or polish > POLISH:
                return at, not stuck
    return at, not len(start)


def _step(box: Box, at: Point, lam: float) -> tuple[Floats, float, bool]:
    """Return the damped step in the box, its slope, and whether the damped matrix was convex.

    Of the bounds in the way only the one that is met first holds, then the next.
    """
    matrix, here, every = at.matrix(lam), np.zeros(len(at.z)), range(len(at.z))
    held = box.held(at)
    # What moves no prediction, as the exponent of a term that is zero, may stay where it is.
    held += [i for i, x in enumerate(matrix.diagonal().tolist()) if x == 0.0 and i not in held]
    while True:
        free = [i for i in every if i not in held]
        there, convex = here.copy(), True
        if len(free) == len(here):
            there, convex = _solve(at, matrix, -at.gradient, free)
        elif free:
            rows = matrix[free]
            rhs = -at.gradient[free] - rows[:, held] @ here[held]
            there[free], convex = _solve(at, rows[:, free], rhs, free)
        met = box.first_met(at.z, here, there, held)
        if met is None:
            return there, float(at.gradient @ there), convex
        reach, first, edge = met
        here = here + reach * (there - here)
        here[first] = edge
        held.append(first)


def _solve(at: Point, matrix: Floats, rhs: Floats, free: list[int]) -> tuple[Floats, bool]:
    """Solve M x = b as :func:`.boxed_step.damped_step` does; return x and whether M was convex."""
    _, solution, failure = dposv(matrix, rhs)
    if not failure:
        return solution, True
    diagonal = at.matrix(1.0).diagonal()[free]
    unit = 1.0 / np.sqrt(np.maximum(diagonal, 1e-12 * diagonal.max()) + TINY)
    values, vectors = np.linalg.eigh(
        np.nan_to_num(matrix * np.outer(unit, unit), posinf=0.0, neginf=0.0)
    )
    size = np.abs(values)
    size = np.maximum(size, 1e-10 * size.max() + TINY)
    return unit * (vectors @ (((unit * rhs) @ vectors) / size)), bool(values[0] > RIDGE)


def _further(
    problem: Problem, tried: Tried, weight: Floats, *, fine: bool
) -> tuple[Point, float] | None:
    """Look elsewhere as :func:`.detour.improve` does; return something lower and its damping."""
    at, better, slope = tried.at, tried.better, tried.slope
    z, low, damping = _along(problem, tried, weight)
    found = None
    if low < (tried.new.value if better else at.value) - tried.floor:
        found = Point(problem, z, weight), damping
    if better or (found is not None and not (fine and at.value - low < -slope)):
        return found
    attempt = Attempt(
        problem, weight, None, at.state(),
        Step(tried.step[None], np.array([slope]), np.array([tried.convex])),
        *(np.array([x]) for x in (tried.new.value, tried.lam, tried.after, better, tried.floor)),
    )  # fmt: skip
    _, lower = improve(attempt, np.array([True]), fine=fine, crawl=0.0)
    return (Point(problem, lower[0], weight), float(attempt.after[0])) if len(lower) else found


def _along(problem: Problem, tried: Tried, weight: Floats) -> tuple[Floats, float, float]:
    """Return the best of other lengths of a step, its objective, and the damping to go on with."""
    lam = tried.lam
    lengths = LONGER if tried.better else SHORTER
    points = tried.at.z + lengths[:, None] * tried.step
    points = np.clip(points, problem.lower, problem.upper)
    value = values(problem, points, weight)
    value[np.isnan(value)] = np.inf
    best = int(value.argmin())
    after = _next(lam, better=True) if tried.better else min(max(3.0 * lam, 0.1), max(1.0, lam))
    return points[best], float(value[best]), after


def _is_within(share: float, step: Floats, z: Floats) -> bool:
    """Return whether no coordinate of a step is more than a share of where it leads."""
    pairs = zip(step.tolist(), z.tolist(), strict=True)
    return all(abs(s) <= share * (abs(x) + 1e-3) for s, x in pairs)


def _next(lam: float, *, better: bool) -> float:
    """Return :func:`.detour.relax` or :func:`.detour.stiffen` of one damping."""
    if better and lam <= 1.0:
        return 0.0 if lam < SLIGHT else 0.3 * lam
    return float((relax if better else stiffen)(np.array([lam]))[0])
