"""Approach 3: fit a law to all runs at once, from every start the exponent grid proposes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import FitError, RunsError
from ..laws import ChinchillaLaw, Constraints, Law
from ..records import RunTable
from .allocate import percentile_interval
from .allocation import Scope
from .bootstrap import resample, resampling_groups
from .compute import FlopModel, as_flops, learn_flops
from .enough import require_enough, usable
from .examine import examine
from .held_out import hold_out
from .objective import DEFAULT_DELTA, Objective, ObjectiveName
from .result import LawFit
from .search import gather, solve

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
_RIVALS = 1.5
_MOST_WEIGHT = 1e15


def fit_law(
    runs: RunTable | pd.DataFrame,
    law: Law | None = None,
    objective: ObjectiveName = "log-huber",
    *,
    delta: float = DEFAULT_DELTA,
    bootstrap: int = 1000,
    by: str = "auto",
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
        ``"log-huber"`` weighs relative errors and hardly feels outliers, such as diverged runs;
        ``"mse"`` weighs absolute errors, so that the smallest runs count most.
    delta : float
        δ of the Huber loss, in ln loss: residuals beyond it count linearly.
    bootstrap : int
        Resamples; 0 for none, and so no intervals. There are none either where the runs are no
        more than the free parameters.
    by : str
        What is resampled: ``"runs"``; ``"groups"`` (the column ``group``: training trunks);
        another column whose equal values share their error, such as ``"seed"``; or ``"auto"``:
        trunks where there are five or more, else runs.
    seed : int
        Of the resampling.
    fixed : mapping of str to float
        Parameters to hold, such as ``{"E": 1.69}``.
    shared : sequence of str
        Parameters with one common value, such as ``("alpha", "beta")``.
    weights : array_like, shape (n_runs,)
        Weight of each run that counts, in the order of ``runs.run_ids``; 0 leaves a run out.
    variances : array_like, shape (n_runs,)
        Variance of each run's residual; turned into weights 1/variance of mean one.
    flops : FlopModel, "6ND", "counted", float or callable
        How answers turn N and D into C = k·N·D: a number is k, a callable takes N and returns
        k(N), and ``"counted"`` learns k(N) from the runs' own C.
    level : float
        Of the intervals.

    Returns
    -------
    LawFit
        Print it: parameters with intervals, the status, and a sentence for each doubt.

    Raises
    ------
    TooFewRunsError
        If there are fewer runs, sizes, token counts or budgets than the law can be fitted to.
    FitError
        If a loss or an option makes no sense.

    Examples
    --------
    >>> runs = snb.RunTable.from_csv("runs.csv")  # doctest: +SKIP
    >>> fit = snb.fit_law(runs)  # doctest: +SKIP
    >>> fit.allocate(1e22)  # doctest: +SKIP
    """
    law = _checked(law, bootstrap, level)
    table, left_out = usable(as_table(runs))
    goal = Objective(objective, delta)
    constraints = Constraints(fixed=dict(fixed or {}), shared=tuple(shared))
    inputs = gather(law, table)
    loss = np.asarray(table.L, dtype=float)
    weight = _weights(len(table), weights, variances)
    counted = table if weight.all() else table.where(weight > 0)
    require_enough(law, counted, constraints)
    optimum = solve(law, inputs, loss, goal, constraints=constraints, weight=weight)
    drawn = None
    # A law that passes through its runs passes through every resample of them too.
    if bootstrap and np.count_nonzero(weight) > optimum.z.shape[1]:
        drawn = resample(
            optimum.problem,
            optimum.z[optimum.value <= _RIVALS * optimum.value[0]][:3],
            weight,
            groups=resampling_groups(table, by),
            n_samples=bootstrap,
            seed=seed,
        )
    answers = as_flops(flops, lambda: learn_flops(table.N, table.D, table.C))
    report = examine(law, table, optimum, drawn, answers, level=level)
    samples = None if drawn is None else drawn.params
    return LawFit(
        law=law,
        params=dict(zip(law.param_names, optimum.params.tolist(), strict=True)),
        intervals={}
        if samples is None
        else {
            name: percentile_interval(samples[:, i], level)
            for i, name in enumerate(law.param_names)
        },
        status=report.status,
        warnings=(*left_out, *report.warnings),
        objective=objective,
        delta=delta,
        objective_value=float(optimum.value[0]),
        n_runs=len(counted),
        data_hash=table.data_hash,
        samples=samples,
        resampled="" if drawn is None else drawn.how,
        scope=scope_of(counted),
        runs=table,
        excluded=table.exclusions,
        constraints=constraints,
        flops=answers,
        level=level,
        profiles=report.profiles,
        held_out=hold_out(law, table, goal, constraints, weight) if bootstrap else None,
    )


def _checked(law: Any, bootstrap: int, level: float) -> Law:
    """Return the law to fit, once the options that only show later make sense."""
    if bootstrap < 0:
        raise FitError(f"bootstrap is {bootstrap}, but must be 0 (no intervals) or more.")
    if not 0.0 < level < 1.0:
        raise FitError(f"level is {level!r}, but is a probability between 0 and 1, such as 0.9.")
    if law is None:
        return ChinchillaLaw()
    if not isinstance(law, Law):
        name = law.__name__ if isinstance(law, type) else repr(law)
        raise FitError(
            f"law is {name}, but must be a law such as scaling_nb.ChinchillaLaw(), with brackets."
        )
    return law


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


def _weights(n: int, weights: ArrayLike | None, variances: ArrayLike | None) -> Floats:
    weight = np.ones(n)
    if weights is None and variances is None:
        return weight
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
    if weight.max() > _MOST_WEIGHT * weight[weight > 0].min():
        raise FitError(
            f"weights span a factor of {weight.max() / weight[weight > 0].min():.1g}, so that the "
            "runs of the smallest count for nothing. Give them 0, or smaller differences."
        )
    return weight


def scope_of(table: RunTable) -> Scope:
    """Return the ranges of N, D and C among the runs that count; C is 6·N·D where unknown."""
    compute = np.where(np.isfinite(table.C), table.C, 6.0 * table.N * table.D)
    ranges: list[Any] = [(float(x.min()), float(x.max())) for x in (table.N, table.D, compute)]
    return Scope(N=ranges[0], D=ranges[1], C=ranges[2], unit=table.unit)
