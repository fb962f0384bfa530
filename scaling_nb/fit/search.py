"""The global optimum of one law's objective on one table, and the local minima that rival it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from ..laws import Constraints, Law
from ..records import RunTable
from .newton import Solution, minimise
from .objective import Objective
from .problem import Problem, make_problem

Floats = NDArray[np.float64]
_SUBSAMPLE = 4000
_OUTLYING = 25.0


@dataclass(frozen=True, slots=True)
class Optimum:
    """The certified optimum of one problem, with the local minima that compete with it.

    Attributes
    ----------
    problem : Problem
    z : ndarray, shape (n_minima, n_free)
        Distinct local minima, the lowest first.
    value : ndarray, shape (n_minima,)
    gradient, hessian, gauss_newton : ndarray
        At the lowest.
    weight : ndarray, shape (n_runs,)
    scale : float
        Losses were divided by it.
    converged : bool
    """

    problem: Problem
    z: Floats
    value: Floats
    gradient: Floats
    hessian: Floats
    gauss_newton: Floats
    weight: Floats
    converged: bool

    @property
    def params(self) -> Floats:
        """Raw parameters of the lowest minimum, shape (n_params,)."""
        return np.asarray(self.problem.surface.to_params(self.problem.theta(self.z[:1]))[0])


def gather(law: Law, table: RunTable) -> dict[str, Floats]:
    """Return the columns that `law` reads, checked."""
    inputs: dict[str, Floats] = {}
    for name in law.inputs:
        values = np.asarray(table.column(name), dtype=float)
        if name == "unique_tokens":
            values = np.where(np.isnan(values), table.D, values)
        if name == "C":
            values = np.where(np.isnan(values), 6.0 * table.N * table.D, values)
        if not np.all(np.isfinite(values) & (values > 0)):
            raise FitError(
                f"{law.name} needs a positive {name} for every run. Exclude the runs without one."
            )
        inputs[name] = values
    return inputs


def solve(
    law: Law,
    inputs: Mapping[str, Floats],
    loss: Floats,
    objective: Objective,
    *,
    constraints: Constraints,
    weight: Floats,
) -> Optimum:
    """Find the global optimum of a law's objective on one table."""
    surface = law.surface(inputs, constraints)
    problem = make_problem(surface, law.param_names, loss, objective, constraints)
    start_weight = objective.start_weight(loss, weight)
    few = _spread(loss, _SUBSAMPLE)
    if few is None:
        starts = problem.free(surface.starts(loss, start_weight, constraints))
    else:
        small = surface.take(few)
        part = make_problem(small, law.param_names, loss[few], objective, constraints)
        rough = problem.free(small.starts(loss[few], start_weight[few], constraints))
        found = minimise(part, rough, weight[few])
        starts = found.z[_distinct(found.z, found.value)[:2]]
    solution = minimise(problem, starts, weight)
    if few is None and objective.name != "mse":
        solution = _again_without_outliers(problem, solution, loss, weight, constraints)
    keep = _distinct(solution.z, solution.value)
    best = keep[0]
    return Optimum(
        problem,
        solution.z[keep],
        solution.value[keep],
        solution.gradient[best],
        solution.hessian[best],
        solution.gauss_newton[best],
        weight,
        bool(solution.converged[best]),
    )


def _again_without_outliers(
    problem: Problem, solution: Solution, loss: Floats, weight: Floats, constraints: Constraints
) -> Solution:
    """Search the grid once more where far outliers may have led the first search astray.

    Least squares follows diverged runs; reweighted by the residuals found, it no longer does.
    """
    best = int(solution.value.argmin())
    predicted = problem.surface.loss(problem.theta(solution.z[best : best + 1]))
    residual = np.abs(np.log(loss / predicted[0]))
    typical = max(float(np.median(residual)), problem.objective.delta)
    if residual.max() <= _OUTLYING * typical:
        return solution
    trust = weight / np.maximum(residual, typical) / loss**2
    trust[residual > _OUTLYING * typical] = 0.0
    starts = problem.free(problem.surface.starts(loss, trust, constraints))
    more = minimise(problem, starts, weight)
    return Solution(
        *(
            np.concatenate([getattr(solution, name), getattr(more, name)])
            for name in ("z", "value", "gradient", "hessian", "gauss_newton", "converged")
        )
    )


def _spread(loss: Floats, size: int) -> NDArray[np.intp] | None:
    if len(loss) <= 2 * size:
        return None
    return np.linspace(0, len(loss) - 1, size).astype(np.intp)


def _distinct(z: Floats, value: Floats) -> list[int]:
    """Return indices of distinct local minima, the lowest first."""
    kept: list[int] = []
    for i in np.argsort(value, kind="stable"):
        if np.isfinite(value[i]) and all(
            np.max(np.abs(z[i] - z[j]) / (np.abs(z[j]) + 1e-2)) > 1e-4 for j in kept
        ):
            kept.append(int(i))
    if not kept:
        raise FitError(
            "the objective is infinite at every start. Look for losses that are not positive."
        )
    return kept
