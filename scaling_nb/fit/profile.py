"""Profile likelihood: how far one number can move before the fit gets significantly worse.

The bootstrap asks what other runs would have said; the profile asks what these runs exclude. It
shows what a percentile interval hides: a valley that is flat, or open on one side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from .newton import Solution, minimise
from .objective import Objective
from .problem import Problem, evaluate

Floats = NDArray[np.float64]

CHI2_90 = 2.705543454095404
"""90 % quantile of χ² with one degree of freedom."""
_POINTS = 17
_ITERATIONS = 60
_TOLERANCE = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """The objective as a function of one number, everything else refitted.

    Attributes
    ----------
    name : str
        ``"E"`` or ``"exponent_N"``.
    values : ndarray, shape (n_points,)
    rise : ndarray, shape (n_points,)
        Objective above its minimum, in units in which 2.71 ends the 90 % interval.
    interval : (low, high)
        90 %; an end on a bound is the bound, and an end that is not reached is infinite.
    """

    name: str
    values: Floats
    rise: Floats
    interval: tuple[float, float]


def noise_unit(
    objective: Objective, observed: Floats, predicted: Floats, weight: Floats, n_free: int
) -> float:
    """Return the rise of the objective that one unit of χ² costs: τ/2, τ = E[ψ²] / E[ψ'].

    For squares that is the residual variance. For the Huber loss E[ψ'] is the share of
    residuals within δ, estimated in a window wide enough to hold some (Huber 1981, ch. 7).
    """
    n = max(float((weight > 0).sum()), 1.0)
    spare = max(n - n_free, 1.0)
    r = objective.residuals(observed, predicted)
    if objective.name == "mse":
        return float(np.sum(weight * r * r) / spare)
    size = np.sort(np.abs(r))
    window = max(objective.delta, float(size[min(len(size) - 1, int(max(5, 0.5 * n**0.8)))]))
    density = float(np.mean(np.abs(r) <= window)) * objective.delta / window
    psi = np.minimum(np.abs(r), objective.delta)
    return float(0.5 * np.sum(weight * psi * psi) / spare / max(density, 1.0 / n))


def profile_coordinate(
    problem: Problem,
    best: Floats,
    weight: Floats,
    coordinate: int,
    values: Floats,
) -> Floats:
    """Return the least objective with one free coordinate held at each of `values`, ascending.

    All points are refined as one batch from the optimum. Where the result is no valley, some
    point found a worse branch, and each is refined once more from its neighbours.
    """
    starts = np.tile(best, (len(values), 1))
    starts[:, coordinate] = values
    frozen = np.zeros(len(best), dtype=bool)
    frozen[coordinate] = True

    def refine(z: Floats) -> Solution:
        return minimise(
            problem, z, weight, frozen=frozen, tolerance=_TOLERANCE, max_iterations=_ITERATIONS
        )

    solution = refine(starts)
    for shift in (1, -1):
        if _is_valley(solution.value):
            break
        z = np.roll(solution.z, shift, axis=0)
        z[:, coordinate] = values
        again = refine(z)
        lower = again.value < solution.value
        solution.z[lower] = again.z[lower]
        solution.value[lower] = again.value[lower]
    return solution.value


def _is_valley(cost: Floats) -> bool:
    """Return whether `cost` falls to its least value and rises from there."""
    lowest = int(cost.argmin())
    change = np.diff(cost)
    slack = 1e-6 * np.abs(cost[1:])
    return bool(
        np.all(change[:lowest] <= slack[:lowest]) and np.all(change[lowest:] >= -slack[lowest:])
    )


def profile(
    problem: Problem, best: Floats, weight: Floats, name: str, coordinate: int, unit: float
) -> Profile:
    """Profile one free coordinate over the range in which it is not excluded.

    Parameters
    ----------
    best : ndarray, shape (n_free,)
        The optimum.
    coordinate : int
        Which free coordinate; it must be a raw parameter, as E and the exponents are.
    unit : float
        Of :func:`noise_unit`.
    """
    floor, _, hessian, gauss = evaluate(problem, best[None], weight)
    width = _first_width(hessian[0], gauss[0], coordinate, unit)
    low, high = problem.lower[coordinate], problem.upper[coordinate]
    centre = float(best[coordinate])
    span = np.array([width, width])
    for _ in range(12):
        values = np.unique(
            np.clip(
                np.concatenate(
                    [
                        centre - span[0] * np.linspace(1, 0, _POINTS // 2 + 1),
                        centre + span[1] * np.linspace(0, 1, _POINTS // 2 + 1),
                    ]
                ),
                low,
                high,
            )
        )
        cost = profile_coordinate(problem, best, weight, coordinate, values)
        rise = np.maximum(cost - floor[0], 0.0) / max(unit, 1e-300)
        open_low = rise[0] < CHI2_90 and values[0] > low
        open_high = rise[-1] < CHI2_90 and values[-1] < high
        if not (open_low or open_high):
            break
        span = span * np.where([open_low, open_high], 2.5, 1.0)
        if span.max() > 1e3 * (abs(centre) + 1.0):
            break
    return Profile(
        name=name,
        values=values,
        rise=rise,
        interval=(
            _crossing(values, rise, centre, low, -1),
            _crossing(values, rise, centre, high, 1),
        ),
    )


def profile_exponent(
    problem: Problem, best: Floats, weight: Floats, alpha: int, beta: int, unit: float
) -> Profile:
    """Profile a = β / (α + β), by moving along it: β = α a / (1 - a).

    Parameters
    ----------
    alpha, beta : int
        Coordinates of θ.
    """
    theta = problem.theta(best[None])[0]
    a_best = float(theta[beta] / (theta[alpha] + theta[beta]))
    column_a = np.flatnonzero(problem.mixing[alpha])
    column_b = np.flatnonzero(problem.mixing[beta])
    if not len(column_a) or not len(column_b) or column_a[0] == column_b[0]:
        raise FitError("the exponent a cannot be profiled: alpha or beta is held or shared.")
    floor = evaluate(problem, best[None], weight)[0][0]

    def rise_at(a: float, start: Floats) -> tuple[float, Floats]:
        ratio = a / (1.0 - a)
        mixing = np.delete(problem.mixing, column_b[0], axis=1)
        column = int(column_a[0]) - int(column_b[0] < column_a[0])
        mixing[beta, column] = ratio
        lower = np.delete(problem.lower, column_b[0])
        upper = np.delete(problem.upper, column_b[0])
        lower[column] = max(lower[column], problem.lower[column_b[0]] / ratio)
        upper[column] = min(upper[column], problem.upper[column_b[0]] / ratio)
        if lower[column] > upper[column]:
            return np.inf, start
        moved = replace(problem, mixing=mixing, lower=lower, upper=upper)
        solution = minimise(
            moved, start[None], weight, tolerance=_TOLERANCE, max_iterations=_ITERATIONS
        )
        rise = (float(solution.value[0]) - floor) / max(unit, 1e-300)
        return max(rise, 0.0), solution.z[0]

    first = np.delete(best, column_b[0])
    values, rises, ends = [a_best], [0.0], []
    for direction in (-1.0, 1.0):
        edge = 0.001 if direction < 0 else 0.999
        start, inner, step = first, a_best, 0.02
        while True:
            outer = float(np.clip(inner + direction * step, 0.001, 0.999))
            rise, start = rise_at(outer, start)
            values.append(outer)
            rises.append(rise)
            if rise > CHI2_90 or outer == edge:
                break
            inner, step = outer, step * 1.6
        ends.append((outer, rise > CHI2_90))
    order = np.argsort(values)
    grid, cost = np.array(values)[order], np.array(rises)[order]
    return Profile(
        name="exponent_N",
        values=grid,
        rise=cost,
        interval=(
            _crossing(grid, cost, a_best, 0.0, -1) if ends[0][1] else 0.0,
            _crossing(grid, cost, a_best, 1.0, 1) if ends[1][1] else 1.0,
        ),
    )


def _first_width(hessian: Floats, gauss: Floats, coordinate: int, unit: float) -> float:
    """Return three standard errors by the curvature at the optimum."""
    matrix = hessian if np.linalg.eigvalsh(hessian)[0] > 0 else gauss
    variance = np.linalg.pinv(matrix, hermitian=True)[coordinate, coordinate] * 2.0 * unit
    return float(3.0 * np.sqrt(max(variance, 0.0)) + 1e-300)


def _crossing(values: Floats, rise: Floats, centre: float, bound: float, side: int) -> float:
    """Return where the square root of the rise crosses the critical value on one side."""
    keep = values <= centre if side < 0 else values >= centre
    x, y = values[keep], np.sqrt(rise[keep])
    if side < 0:
        x, y = x[::-1], y[::-1]
    critical = np.sqrt(CHI2_90)
    above = np.flatnonzero(y > critical)
    if not len(above):
        return float(bound)
    i = int(above[0])
    if i == 0:
        return float(x[0])
    share = (critical - y[i - 1]) / (y[i] - y[i - 1])
    return float(x[i - 1] + share * (x[i] - x[i - 1]))
