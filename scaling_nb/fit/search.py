"""The global optimum of one law's objective on one table, and the local minima that rival it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from ..laws import Constraints, Law
from ..laws.power_sum import local_minima
from ..records import RunTable
from .descent import refine
from .newton import Solution, minimise
from .objective import Objective
from .problem import (
    Problem,
    coefficients,
    coefficients_of,
    fibres_at,
    lattice,
    make_problem,
    values,
)

Floats = NDArray[np.float64]
_SUBSAMPLE = 4000
_OUTLYING = 25.0
_BEYOND = 2.0
_FEW = 64
_FLOOR = 0.1
_LATTICE = 11
_USUAL = (0.02, 1.5)
"""The exponents of the lattice: those of the literature, and some room."""
_REWEIGHTED = 3
_MOST_STARTS = 8


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
    constraints : Constraints
        What was held still.
    converged : bool
    """

    problem: Problem
    z: Floats
    value: Floats
    gradient: Floats
    hessian: Floats
    gauss_newton: Floats
    weight: Floats
    constraints: Constraints
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
    solution, keep = find_minima(problem, constraints, weight)
    best = keep[0]
    return Optimum(
        problem,
        solution.z[keep],
        solution.value[keep],
        solution.gradient[best],
        solution.hessian[best],
        solution.gauss_newton[best],
        weight,
        constraints,
        bool(solution.converged[best]),
    )


def find_minima(
    problem: Problem, constraints: Constraints, weight: Floats
) -> tuple[Solution, list[int]]:
    """Refine every start there is; return where they ended, and the distinct ones, lowest first."""
    loss = problem.observed
    few = _spread(loss, _SUBSAMPLE)
    if few is None:
        starts = _starts(problem, constraints, weight)
    else:
        part = replace(problem, surface=problem.surface.take(few), observed=loss[few])
        found = minimise(part, _starts(part, constraints, weight[few]), weight[few])
        starts = found.z[_distinct(found.z, found.value)[:2]]
    solution = refine(problem, starts, weight)
    return solution, _distinct(solution.z, solution.value)


def _starts(problem: Problem, constraints: Constraints, weight: Floats) -> Floats:
    trust = problem.objective.start_weight(problem.observed, weight)
    starts = problem.free(problem.surface.starts(problem.observed, trust, constraints))
    if problem.objective.name == "mse":
        return starts
    starts = np.concatenate([starts, *_robust_starts(problem, starts, weight, constraints)])
    if len(starts) == 1:
        return starts
    # What differs in nothing but linear coordinates leads to one place.
    starts = starts[np.argsort(values(problem, starts, weight), kind="stable")]
    bent = ~problem.linear
    seen = {row[bent].tobytes(): i for i, row in reversed(list(enumerate(starts)))}
    return starts[sorted(seen.values())]


def _robust_starts(
    problem: Problem, starts: Floats, weight: Floats, constraints: Constraints
) -> Iterator[Floats]:
    """Yield starts near which the Huber loss may be least, though least squares is not.

    Where residuals are far beyond δ the objective is nearly that of least absolute deviations,
    which has minima of its own: diverged runs lead least squares astray, and few runs leave many
    pairs of exponents that pass through some of them.
    """
    loss, delta = problem.observed, problem.objective.delta
    residual = _log_residuals(problem, starts[0])
    typical = median(residual)
    if typical <= _BEYOND * delta and residual.max() <= _OUTLYING * max(typical, delta):
        return
    if len(loss) <= _FEW:
        yield _lattice_starts(problem, weight)
    if len(loss) <= _FEW or residual.max() > _OUTLYING * typical:
        trust = weight / loss**2 / np.maximum(residual, max(_FLOOR * typical, delta))
        yield problem.free(problem.surface.starts(loss, trust, constraints))


def _lattice_starts(problem: Problem, weight: Floats) -> Floats:
    """Return the local minima of the objective itself on a coarse lattice of exponents.

    The linear coordinates are refitted at each point by reweighted least squares.
    """
    bent = np.flatnonzero(~problem.linear)
    if not problem.linear.any() or not 1 <= len(bent) <= 2:
        return np.empty((0, len(problem.lower)))
    low = np.maximum(problem.lower[bent], _USUAL[0])
    high = np.minimum(problem.upper[bent], _USUAL[1])
    exponents = lattice(tuple(low.tolist()), tuple(high.tolist()), _LATTICE)
    shape = (_LATTICE,) * len(bent)
    z = np.zeros((len(exponents), len(problem.lower)))
    z[:, bent] = exponents
    linear, loss, objective = problem.linear, problem.observed, problem.objective
    fibres = fibres_at(problem, z, linear)
    gram, moment = fibres.normal(weight / loss**2)
    c = coefficients(gram, moment)
    for _ in range(_REWEIGHTED):
        # Whether a coefficient is zero follows with the weights, not within a round.
        downhill = (gram @ c[:, :, None])[:, :, 0] < moment
        gram, moment = fibres.normal(objective.majorant(loss, fibres.predict(loss, c), weight))
        c = coefficients_of((c > 0.0) | downhill, gram, moment)
    z[:, linear] = c
    cost = objective.value(loss, fibres.predict(loss, c), weight).reshape(shape)
    best = local_minima(cost)
    points, value = z.reshape(*shape, -1)[best], cost[best]
    # Along the exponent of a term that is zero all is one minimum, but the term may come back at
    # one exponent and not at another: both ends are tried.
    again = (points[1:, linear] == 0).any(axis=1) & (np.diff(value) <= 1e-9 * value[1:])
    group = np.cumsum(np.append(True, ~again)[: len(points)])
    order = np.lexsort((points[:, bent].sum(axis=1), group))
    change = np.diff(group[order]) != 0
    ends = np.append(True, change)[: len(points)] | np.append(change, True)[-len(points) :]
    return np.asarray(points[order[ends]][:_MOST_STARTS])


def _log_residuals(problem: Problem, z: Floats) -> Floats:
    predicted = problem.surface.loss(problem.theta(z[None]))[0]
    return np.asarray(np.abs(np.log(problem.observed / predicted)))


def median(values: Floats) -> float:
    """Return the median; on small samples far faster than np.median."""
    ordered, half = np.sort(values), len(values) // 2
    return float(ordered[half] if len(values) % 2 else 0.5 * (ordered[half - 1] + ordered[half]))


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
