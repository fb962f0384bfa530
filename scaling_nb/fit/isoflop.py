"""Approach 2: a parabola for each compute budget, then power laws through the minima.

Hoffmann et al. 2022, §3.2. The vertex of each valley is N*; ln N* against ln C gives the
allocation exponent a. D* is what the runs' own FLOP per token leave for the budget at N*: at
small sizes C is not 6·N·D, and C / 6N would be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import FitError, counted
from ..plain_text import plain_text
from ..records import RunTable
from .allocation import Allocation, Scope
from .enough import usable
from .held_out import HeldOut
from .isoflop_notes import (
    DOUBTS_OF_ANSWER,
    IsoFlopBias,
    IsoFlopStatus,
    describe_runs,
    estimate_bias,
    judge,
)
from .notes import FitWarning
from .parabola import IsoFlopMinimum, Parabola, describe_slice, fit_parabola
from .parametric import as_table, scope_of
from .result import TableFormat
from .slices import Array, Resampler, slices_of
from .table import chinchilla_table, decades
from .trend import MIN_OPTIMA_FOR_FLOOR, Trends, fit_loss_trend, fit_trend
from .trend_answers import FlopsPerToken, answer_from_trends

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_WINDOW = 8.0
"""Sizes within this factor of the minimum enter its parabola."""
_NONE = (np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoFlopFit:
    """Approach 2: the minima, the power laws through them, and what is wrong with them.

    Attributes
    ----------
    runs : RunTable
        What was fitted.
    minima : tuple of IsoFlopMinimum
        One for each budget, ascending; only those with status ``optimum`` enter the power laws.
    rows : tuple of ndarray of int
        For each of ``minima``, its runs' places in ``runs``.
    trends : Trends or None
        N*(C), D*(C), L*(C); None with fewer than two optima.
    flops_per_token : FlopsPerToken
        The runs' own, which turns N* into D*.
    status : str
        ``converged``; ``ill_conditioned``: two optima only, no residual to judge by, or an
        interval that says little; ``not_identified``: fewer than two optima.
    warnings : tuple of FitWarning
        Each a sentence with cause and remedy.
    bias : IsoFlopBias or None
        Approach 2's own error; None where the parametric surface cannot be fitted.
    held_out : HeldOut or None
        How well the smaller budgets' optima predict the loss of the largest one's; None with
        fewer than three optima, and with four: three show no floor, and all of them may.
    level : float
        Two-sided coverage of every interval.
    """

    runs: RunTable = field(repr=False)
    minima: tuple[IsoFlopMinimum, ...] = field(repr=False)
    rows: tuple[NDArray[np.intp], ...] = field(repr=False)
    trends: Trends | None = field(repr=False)
    flops_per_token: FlopsPerToken = field(repr=False)
    status: IsoFlopStatus
    warnings: tuple[FitWarning, ...]
    bias: IsoFlopBias | None = None
    held_out: HeldOut | None = None
    level: float = 0.9

    @property
    def optima(self) -> tuple[IsoFlopMinimum, ...]:
        """The minima that are optima."""
        return tuple(m for m in self.minima if m.status == "optimum")

    @property
    def exponent_N(self) -> float:
        """The exponent a of N* ∝ C^a; NaN where there is no power law."""
        return self.trends.n_params.exponent if self.trends else float("nan")

    @property
    def exponent_D(self) -> float:
        """The exponent b of D* ∝ C^b; NaN where there is no power law."""
        return self.trends.n_tokens.exponent if self.trends else float("nan")

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Intervals of ``exponent_N`` and ``exponent_D``."""
        if self.trends is None:
            return {}
        return {
            "exponent_N": self.trends.n_params.exponent_interval,
            "exponent_D": self.trends.n_tokens.exponent_interval,
        }

    def predict(self, compute: ArrayLike) -> Array:
        """Return the loss L*(C) of compute-optimal runs, nats per token.

        Raises
        ------
        FitError
            If fewer than two budgets have an optimum.
        """
        return self._require_trends().loss.at(compute)

    def allocate(self, compute: float, *, within: float = 0.005) -> Allocation:
        """Divide `compute`, FLOP: N* from its power law, D* = C / (FLOP per token at N*).

        Parameters
        ----------
        compute : float, FLOP
        within : float
            Relative loss for the range of nearly optimal sizes, which is the median width of
            the slices' parabolas at that loss.

        Returns
        -------
        Allocation
            With the fit's doubts about N* among its notes.

        Raises
        ------
        FitError
            If fewer than two budgets have an optimum, or `compute` is not positive.
        """
        trends = self._require_trends()
        reach = [np.sqrt(within * m.loss / m.coefficients[2]) for m in self.optima]
        factor = float(np.exp(np.median(reach)))
        found = answer_from_trends(
            compute, trends, self.flops_per_token, scope=self.scope, factor=factor, within=within
        )
        doubts = [note for note in self.warnings if note.code in DOUBTS_OF_ANSWER]
        return replace(found, held_out=self.held_out, notes=(*doubts, *found.notes))

    def _require_trends(self) -> Trends:
        if self.trends is None:
            raise FitError(" ".join(map(str, self.warnings)))
        return self.trends

    @property
    def unit(self) -> str:
        """What D counts, as the runs say."""
        return self.runs.unit

    @property
    def scope(self) -> Scope:
        """Ranges of N, D and C among the runs."""
        return scope_of(self.runs)

    def chinchilla_table(
        self, budgets: Sequence[float] | None = None, *, format: TableFormat = "frame"
    ) -> Any:
        """Return compute-optimal N, D, loss and tokens per parameter, with intervals, by budget.

        Parameters
        ----------
        budgets : sequence of float, FLOP
            Default: decades from the smallest run's to a hundred times the largest run's.
        format : {"frame", "markdown", "latex"}
            A DataFrame, or text.
        """
        asked = decades(self.scope) if budgets is None else budgets
        return chinchilla_table([self.allocate(c) for c in asked], format=format)

    _repr_pretty_ = plain_text

    def __str__(self) -> str:
        lines = [f"Approach 2 (IsoFLOP parabolas): {self.status}, {counted(len(self.runs), 'run')}"]
        for name, symbol in (("exponent_N", "N* ∝ C^a, a"), ("exponent_D", "D* ∝ C^b, b")):
            if name in self.intervals:
                lines.append(f"  {symbol} = {getattr(self, name):.3f}{self._between(name)}")
        for m in self.minima:
            found = f"N* {m.n_params_text}, loss {m.loss:.4g}"
            lines.append(f"  C {m.budget:.3g}: {found if m.status == 'optimum' else m.status}")
        return "\n".join([*lines, *(f"! {note}" for note in self.warnings)])

    def _between(self, name: str) -> str:
        """Return an interval in brackets; nothing where there is none."""
        lo, hi = self.intervals.get(name, (np.nan, np.nan))
        return f"  ({self.level:.0%}: {lo:.3f} to {hi:.3f})" if np.isfinite(lo + hi) else ""

    def __repr__(self) -> str:
        return (
            f"<IsoFlopFit a={self.exponent_N:.3f}{self._between('exponent_N')}; {self.status}, "
            f"{len(self.optima)} of {len(self.minima)} budgets with an optimum>"
        )

    def _repr_html_(self) -> str:
        head, *lines = str(self).split("\n  C ")[0].split("\n")
        notes = "".join(f"<li>{escape(str(note))}</li>" for note in self.warnings)
        cells = [
            (f"{m.budget:.3g}", m.n_params_text, f"{m.n_tokens:.3g}", f"{m.loss:.4g}", m.status)
            if m.status == "optimum"
            else (f"{m.budget:.3g}", "", "", "", m.status)
            for m in self.minima
        ]
        heads = ("C (FLOP)", "N*", "D*", "loss", "")
        rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in cells)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return (
            f"<p><b>{escape(head)}</b>{''.join('<br>' + escape(x.strip()) for x in lines)}</p>"
            f"<table><tr>{''.join(f'<th>{h}</th>' for h in heads)}</tr>{body}</table>"
            f"{'<ul>' + notes + '</ul>' if notes else ''}"
        )

    def minima_frame(self) -> pd.DataFrame:
        """Return one row per budget: what was found, or why nothing was."""
        import pandas as pd

        rows = []
        for m in self.minima:
            lo, hi = m.intervals.get("n_params", (np.nan, np.nan))
            rows.append(
                {
                    "budget": m.budget,
                    "status": m.status,
                    "n_params": m.n_params,
                    "n_params_low": lo,
                    "n_params_high": hi,
                    "n_tokens": m.n_tokens,
                    "loss": m.loss,
                    "sizes": m.n_sizes,
                    "note": str(m.note or ""),
                }
            )
        return pd.DataFrame(rows)


def fit_isoflop(
    runs: RunTable | pd.DataFrame,
    *,
    window: float | None = DEFAULT_WINDOW,
    bootstrap: int = 1000,
    level: float = 0.9,
    seed: int = 0,
    bias: bool = True,
) -> IsoFlopFit:
    """Fit Approach 2: loss parabolas in ln N for each budget, then N*(C), D*(C), L*(C).

    Budgets come from the runs' ``budget`` column, or from clusters of C where there is none. A
    minimum at the grid's edge, a parabola that opens downward and a budget with fewer than three
    sizes are reported and left out of the power laws.

    Resampling is a wild bootstrap: each run's residual, corrected for leverage and shrunk
    towards the pooled noise, times a random sign and size that runs of one ``group`` (training
    trunk) share. The grid stays as it is, so that six sizes a budget can be resampled.

    Parameters
    ----------
    runs : RunTable or DataFrame
    window : float or None
        Factor around the minimum within which sizes enter the parabola; None takes all.
    bootstrap : int
        Resamples; 0 gives no intervals.
    level : float
        Two-sided coverage of the intervals.
    seed : int
    bias : bool
        Estimate Approach 2's own bias on the fitted parametric surface.

    Raises
    ------
    TooFewRunsError
        If the runs do not fall into IsoFLOP slices at all.

    References
    ----------
    Hoffmann et al. 2022, §3.2. Wild cluster bootstrap with six-point multipliers: Webb 2014.
    """
    if window is not None and not window > 1.0:
        raise FitError(f"window={window!r} is a factor around the minimum: make it > 1, or None.")
    if not 0.0 < level < 1.0:
        raise FitError(f"level={level!r} is a probability: make it between 0 and 1, such as 0.9.")
    runs, about_runs = usable(_with_compute(as_table(runs)))
    slices, inferred = slices_of(runs)
    fits = [fit_parabola(part, window) for part in slices]
    found = [f for f in fits if f is not None]
    sampler = Resampler.of(runs, found, bootstrap, np.random.default_rng(seed))
    vertices = {f.slice.budget: f.vertices(sampler.losses(f)) for f in found}
    minima = tuple(
        describe_slice(part, fit, vertices.get(part.budget, _NONE), level)
        for part, fit in zip(slices, fits, strict=True)
    )
    optimal = [f for f in found if f.status == "optimum"]
    trends = _fit_trends(optimal, vertices, level) if len(optimal) >= 2 else None
    estimated_bias = estimate_bias(runs, optimal) if bias and trends else None
    about_runs += describe_runs(runs, found)
    status, notes = judge(minima, trends, sampler, bootstrap, estimated_bias, inferred)
    return IsoFlopFit(
        runs=runs,
        minima=minima,
        rows=tuple(part.rows for part in slices),
        trends=trends,
        flops_per_token=FlopsPerToken.of(runs.N, runs.D, runs.C),
        status=status,
        warnings=(*about_runs, *notes),
        bias=estimated_bias,
        held_out=_hold_out(optimal, vertices),
        level=level,
    )


def _with_compute(runs: RunTable) -> RunTable:
    """Return the table with C = 6·N·D where it has none."""
    columns = runs.columns
    compute = np.asarray(columns["C"], float)
    known = np.isfinite(compute) & (compute > 0)
    if known.all():
        return runs
    filled = np.where(known, compute, 6.0 * columns["N"].astype(float) * columns["D"].astype(float))
    return replace(runs, columns={**columns, "C": filled})


def _hold_out(
    optimal: Sequence[Parabola], vertices: Mapping[float, tuple[Array, Array]]
) -> HeldOut | None:
    """Predict the loss at the largest budget's optimum from the other optima.

    None where these are too few, or can show no floor though all together can.
    """
    if len(optimal) < 3 or len(optimal) == MIN_OPTIMA_FOR_FLOOR:
        return None
    *seen, hidden = optimal
    found = {budget: (n[:1], loss[:1]) for budget, (n, loss) in vertices.items()}
    budget, before = (f.slice.budget for f in (hidden, seen[-1]))
    loss = float(found[budget][1][0])
    error = float(np.log(loss / _fit_trends(seen, found, 0.9).loss.at(budget)))
    return HeldOut(
        n_runs=sum(len(f.slice.rows) for f in seen),
        n_hidden=len(hidden.slice.rows),
        threshold=budget,
        extrapolation=budget / before,
        rmse=abs(error),
        bias=error,
    )


def _fit_trends(
    optimal: Sequence[Parabola], vertices: Mapping[float, tuple[Array, Array]], level: float
) -> Trends:
    log_n = np.stack([vertices[f.slice.budget][0] for f in optimal], axis=1)
    loss = np.stack([vertices[f.slice.budget][1] for f in optimal], axis=1)
    valid = np.stack([f.is_bracketed(log_n[:, k]) for k, f in enumerate(optimal)], axis=1)
    parts = [f.slice for f in optimal]
    log_c = np.stack([p.along(p.log_c, log_n[:, k]) for k, p in enumerate(parts)], axis=1)
    flops = [p.along(p.log_flops_per_token, log_n[:, k]) for k, p in enumerate(parts)]
    return Trends(
        n_params=fit_trend(log_c, log_n, valid, level),
        n_tokens=fit_trend(log_c, log_c - np.stack(flops, axis=1), valid, level),
        loss=fit_loss_trend(log_c, loss, valid, level),
        usable=float((valid[1:].sum(axis=1) >= 2).mean()) if len(valid) > 1 else np.nan,
    )
