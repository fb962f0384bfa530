"""What a fit to the smaller budgets would have said of the largest: shown beside every answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from ..laws import Constraints, Law
from ..records import RunTable
from .enough import require_enough
from .objective import Objective
from .search import gather, solve

Floats = NDArray[np.float64]
_TOP_SHARE = 0.2
_MOST_RUNS = 20_000
LARGEST = "the largest budget"
_TOP = "the fifth of the runs with the most compute"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The error of predicting the largest budget from the smaller ones.

    Attributes
    ----------
    n_runs, n_hidden : int
        Runs that were fitted, and that were hidden.
    threshold : float, FLOP
        Runs at or above it were hidden.
    extrapolation : float
        Largest hidden compute over the largest compute that was fitted.
    rmse : float
        Root mean square of ln L - ln L̂: the typical relative error.
    bias : float
        Mean of ln L - ln L̂; positive where the law promised too much.
    hidden : str
        What was hidden, in words.
    """

    n_runs: int
    n_hidden: int
    threshold: float
    extrapolation: float
    rmse: float
    bias: float
    hidden: str = LARGEST

    def __str__(self) -> str:
        return (
            f"Back-test: fitted to {self.n_runs} runs below {self.threshold:.3g} FLOP, the law "
            f"predicted the {self.n_hidden} runs from there on ({self.extrapolation:.3g} times "
            f"further) with an error of {100 * self.rmse:.2g} % (bias {100 * self.bias:+.2g} %)."
        )


class Hidden(NamedTuple):
    """What a back-test hides.

    Attributes
    ----------
    rows : ndarray of bool, shape (n_runs,)
    threshold : float, FLOP
        Runs at or above it are hidden.
    what : str
        The same in words.
    reach : float or None
        Largest hidden compute over the largest that is left; None if either is none.
    """

    rows: NDArray[np.bool_]
    threshold: float
    what: str
    reach: float | None


def hide_largest(table: RunTable, n_budgets: int = 1) -> Hidden:
    """Hide the `n_budgets` largest planned budgets, and runs of none that spent as much.

    Where runs have no budgets, the top fifth of them by compute, for each.
    """
    compute = np.where(np.isfinite(table.C), table.C, 6.0 * table.N * table.D)
    budgets = np.asarray(table.column("budget"), dtype=float)
    distinct = np.unique(budgets[np.isfinite(budgets)])
    if len(distinct) > n_budgets:
        threshold = float(distinct[-n_budgets])
        rows = np.where(np.isfinite(budgets), budgets, compute) >= threshold
        what = LARGEST if n_budgets == 1 else f"the {n_budgets} largest budgets"
    else:
        share = max(1, round(_TOP_SHARE * len(compute) * n_budgets))
        threshold = float(np.sort(compute)[-min(share, len(compute))])
        rows, what = compute >= threshold, _TOP
    whole = rows.all() or not rows.any()
    reach = None if whole else float(compute[rows].max() / compute[~rows].max())
    return Hidden(np.asarray(rows), threshold, what, reach)


def hold_out(
    law: Law, table: RunTable, objective: Objective, constraints: Constraints, weight: Floats
) -> HeldOut | None:
    """Back-test a fit as it was made; None where the smaller budgets cannot be fitted."""
    if len(table) > _MOST_RUNS:
        return None
    hide, threshold, what, reach = hide_largest(table)
    if reach is None:
        return None
    try:
        require_enough(law, table.where(~hide & (weight > 0)), constraints)
        inputs = gather(law, table)
        seen = {name: values[~hide] for name, values in inputs.items()}
        loss = np.asarray(table.L, float)
        optimum = solve(
            law, seen, loss[~hide], objective, constraints=constraints, weight=weight[~hide]
        )
    except FitError:
        return None
    params = dict(zip(law.param_names, optimum.params, strict=True))
    hidden = {name: values[hide] for name, values in inputs.items()}
    error = np.log(loss[hide]) - np.log(law.loss(params, hidden))
    return HeldOut(
        n_runs=int((~hide).sum()),
        n_hidden=int(hide.sum()),
        threshold=threshold,
        extrapolation=reach,
        rmse=float(np.sqrt(np.mean(error**2))),
        bias=float(np.mean(error)),
        hidden=what,
    )
