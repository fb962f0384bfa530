"""Hide the largest budgets, predict them, report the error: what extrapolation is worth here."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import FitError, TooFewRunsError
from ..laws import Law
from ..plain_text import plain_text
from ..records import RunTable
from .held_out import LARGEST, HeldOut, hide_largest
from .parametric import as_table, fit_law
from .result import LawFit
from .search import gather

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
_EACH = ("weights", "variances")
"""Options of :func:`fit_law` with one value for each run."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Backtest:
    """How well the smaller budgets predict the largest.

    Attributes
    ----------
    fit : LawFit
        Fitted to the smaller budgets alone.
    run_ids : tuple of str
        The runs that were hidden.
    observed, predicted : ndarray, shape (n_hidden,)
        Losses.
    threshold : float, FLOP
        Runs at or above it were hidden.
    extrapolation : float
        Largest hidden compute over the largest compute that was fitted.
    hidden : str
        What was hidden, in words.
    """

    fit: LawFit
    run_ids: tuple[str, ...]
    observed: Floats
    predicted: Floats
    threshold: float
    extrapolation: float
    hidden: str = LARGEST

    @property
    def log_errors(self) -> Floats:
        """Ln L - ln L̂ of each hidden run."""
        return np.asarray(np.log(self.observed) - np.log(self.predicted))

    @property
    def rmse(self) -> float:
        """Root mean square of the log errors: the typical relative error."""
        return float(np.sqrt(np.mean(self.log_errors**2)))

    @property
    def bias(self) -> float:
        """Mean log error; positive where the law promised too much."""
        return float(np.mean(self.log_errors))

    @property
    def summary(self) -> HeldOut:
        """The errors in a few numbers."""
        return HeldOut(
            n_runs=self.fit.n_runs,
            n_hidden=len(self.run_ids),
            threshold=self.threshold,
            extrapolation=self.extrapolation,
            rmse=self.rmse,
            bias=self.bias,
            hidden=self.hidden,
        )

    _repr_pretty_ = plain_text

    def __str__(self) -> str:
        return str(self.summary)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(str(name))}</td><td>{seen:.4g}</td><td>{said:.4g}</td>"
            f"<td>{100 * off:+.2g} %</td></tr>"
            for name, seen, said, off in zip(
                self.run_ids, self.observed, self.predicted, self.log_errors, strict=True
            )
        )
        heads = "".join(f"<th>{h}</th>" for h in ("hidden run", "loss", "predicted", "error"))
        return f"<p>{escape(str(self))}</p><table><tr>{heads}</tr>{rows}</table>"


def backtest(
    runs: RunTable | pd.DataFrame,
    law: Law | None = None,
    *,
    n_budgets: int = 1,
    **options: Any,
) -> Backtest:
    """Fit the smaller budgets, predict the largest.

    Parameters
    ----------
    runs : RunTable or DataFrame
    law : Law
        Default: ChinchillaLaw.
    n_budgets : int
        How many of the largest budgets to hide.
    **options
        Of :func:`fit_law`; the default is no bootstrap. Weights and variances are of all runs.

    Raises
    ------
    TooFewRunsError
        If what is left cannot be fitted.
    FitError
        If `n_budgets` is less than one.
    """
    table = as_table(runs)
    if n_budgets < 1:
        raise FitError(f"n_budgets is {n_budgets}, but a back-test hides one budget or more.")
    hide, threshold, what, reach = hide_largest(table, n_budgets)
    if reach is None:
        raise TooFewRunsError(
            "every run is of the largest budget, so nothing is left to fit. Add smaller budgets."
        )
    ids = np.array(table.run_ids, dtype=object)
    train = table.exclude(list(ids[hide]), reason="hidden for the back-test")
    each = {name: _kept(options[name], ~hide) for name in _EACH if options.get(name) is not None}
    fit = fit_law(train, law, **{"bootstrap": 0, **options, **each})
    inputs = {n: values[hide] for n, values in gather(fit.law, table).items()}
    return Backtest(
        fit=fit,
        run_ids=tuple(ids[hide]),
        observed=np.asarray(table.L[hide], dtype=float),
        predicted=np.asarray(fit.law.loss(fit.params, inputs), dtype=float),
        threshold=threshold,
        extrapolation=reach,
        hidden=what,
    )


def _kept(values: ArrayLike, keep: NDArray[np.bool_]) -> ArrayLike:
    """Return an option that has one value for each run, for the runs that stay."""
    array = np.asarray(values)
    return array[keep] if array.shape == keep.shape else values
