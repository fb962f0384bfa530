"""Approach 3: fit a law to all runs at once, from every start the exponent grid proposes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import FitError, RunsError
from ..laws import ChinchillaLaw, Constraints, Law
from ..records import RunTable
from .allocate import Scope, percentile_interval
from .bootstrap import Unit, resample, resampling_groups
from .compute import FlopModel, as_flops, learn_flops
from .newton import Problem, make_problem, minimise
from .objective import DEFAULT_DELTA, Objective, ObjectiveName
from .result import LawFit

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
_SUBSAMPLE = 4000


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
        return self.problem.surface.to_params(self.problem.theta(self.z[:1]))[0]


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


def fit_law(
    runs: RunTable | pd.DataFrame,
    law: Law | None = None,
    objective: ObjectiveName = "log-huber",
    *,
    delta: float = DEFAULT_DELTA,
    bootstrap: int = 1000,
    by: Unit = "auto",
    seed: int = 0,
    fixed: Mapping[str, float] | None = None,
    shared: Sequence[str] = (),
    weights: ArrayLike | None = None,
    variances: ArrayLike | None = None,
    flops: FlopModel | str | float | Callable[[Floats], Floats] = "6ND",
    level: float = 0.90,
) -> LawFit:
    """Fit a scaling law to runs (Approach 3 of Hoffmann et al. 2022).

    Minimises Σ_i w_i Huber_δ(ln L_i - ln L̂(N_i, D_i)), or Σ_i w_i (L_i - L̂_i)².

    Parameters
    ----------
    runs : RunTable or DataFrame
        Columns N (parameters), D (tokens), loss (nats per token), and more where there is more.
    law : Law
        Default: :class:`ChinchillaLaw`.
    objective : {"log-huber", "mse"}
    delta : float
        δ of the Huber loss.
    bootstrap : int
        Resamples; 0 for none, and so no intervals.
    by : {"auto", "runs", "groups"}
        What is resampled; see :func:`resampling_groups`.
    seed : int
        Of the resampling.
    fixed : mapping of str to float
        Parameters to hold, such as ``{"E": 1.69}``.
    shared : sequence of str
        Parameters with one common value, such as ``("alpha", "beta")``.
    weights : array_like, shape (n_runs,)
        Weight of each run that counts.
    variances : array_like, shape (n_runs,)
        Variance of each run's residual; turned into weights 1/variance of mean one.
    flops : FlopModel, "6ND", "counted", float or callable
        How answers turn N and D into C.
    level : float
        Of the intervals.

    Returns
    -------
    LawFit

    Raises
    ------
    TooFewRunsError
        If there are fewer runs, sizes, token counts or budgets than the law can be fitted to.
    FitError
        If a loss or an option makes no sense.
    """
    law = ChinchillaLaw() if law is None else law
    table = as_table(runs)
    goal = Objective(objective, delta)
    constraints = Constraints(fixed=dict(fixed or {}), shared=tuple(shared))
    inputs = gather(law, table)
    loss = np.asarray(table.L, dtype=float)
    weight = _weights(len(table), weights, variances)
    optimum = solve(law, inputs, loss, goal, constraints=constraints, weight=weight)
    samples, how, intervals = None, "", {}
    if bootstrap:
        drawn = resample(
            optimum.problem,
            optimum.z[:1],
            weight,
            groups=resampling_groups(table, by),
            n_samples=bootstrap,
            seed=seed,
        )
        samples, how = drawn.params, drawn.how
        intervals = {
            name: percentile_interval(samples[:, i], level)
            for i, name in enumerate(law.param_names)
        }
    return LawFit(
        law=law,
        params=dict(zip(law.param_names, optimum.params.tolist(), strict=True)),
        intervals=intervals,
        status="converged",
        objective=objective,
        delta=delta,
        objective_value=float(optimum.value[0]),
        n_runs=len(table),
        data_hash=data_hash(table),
        samples=samples,
        resampled=how,
        scope=scope_of(table),
        runs=table,
        constraints=constraints,
        flops=as_flops(flops, lambda: learn_flops(table.N, table.D, table.C)),
        level=level,
    )


def as_table(runs: RunTable | pd.DataFrame) -> RunTable:
    """Return `runs` as a table; a DataFrame goes through :meth:`RunTable.from_frame`."""
    if isinstance(runs, RunTable):
        return runs
    if hasattr(runs, "columns"):
        return RunTable.from_frame(runs)
    raise RunsError(
        f"runs is a {type(runs).__name__}, but a RunTable or a DataFrame with columns N, D and "
        "loss is needed. Use RunTable.from_csv(path) for a file."
    )


def gather(law: Law, table: RunTable) -> dict[str, Floats]:
    """Return the columns that `law` reads, checked."""
    inputs = {}
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


def _weights(n: int, weights: ArrayLike | None, variances: ArrayLike | None) -> Floats:
    weight = np.ones(n)
    for name, given in (("weights", weights), ("variances", variances)):
        if given is None:
            continue
        values = np.asarray(given, dtype=float)
        if values.shape != (n,):
            raise FitError(
                f"{name} has shape {values.shape}, but one for each of {n} runs is needed."
            )
        if not np.all(np.isfinite(values) & (values >= 0)) or not values.any():
            raise FitError(f"{name} must be finite and not negative, and not all zero.")
        if name == "variances":
            if not values.all():
                raise FitError(
                    "a variance of zero is an infinite weight. Leave such a run unweighted."
                )
            inverse = 1.0 / values
            values = inverse / inverse.mean()
        weight = weight * values
    return weight


def data_hash(table: RunTable) -> str:
    """Return the content hash of what was fitted: N, D, C and loss of the runs that count."""
    digest = sha256()
    for values in (table.N, table.D, table.C, table.L):
        digest.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
    return digest.hexdigest()[:12]


def scope_of(table: RunTable) -> Scope:
    """Return the ranges of N, D and C among the runs that count; C is 6·N·D where unknown."""
    compute = np.where(np.isfinite(table.C), table.C, 6.0 * table.N * table.D)
    ranges: list[Any] = [(float(x.min()), float(x.max())) for x in (table.N, table.D, compute)]
    return Scope(N=ranges[0], D=ranges[1], C=ranges[2])
