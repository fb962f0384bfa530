"""Approach 1: the lower envelope of training curves, then power laws along it.

Hoffmann et al. 2022, §3.1. At each C the curve of least loss gives N*(C) and D*(C). It holds only
where every point of a curve is the loss of a schedule that had decayed by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from ..curves import Curve
from ..errors import FitError, TooFewRunsError
from ..plain_text import plain_text
from ..records import RunTable
from .allocation import Allocation, Scope
from .held_out import HeldOut
from .isoflop_notes import IsoFlopStatus, wide_exponent
from .notes import FitWarning
from .parametric import as_table
from .trend import Array, Trend, Trends, fit_loss_trend, fit_trend
from .trend_answers import FlopsPerToken, answer_from_trends

if TYPE_CHECKING:
    import pandas as pd

_GRID = 300
_MIN_POINTS = 10
_MIN_SIZES = 3
_HIDDEN = 0.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EnvelopeFit:
    """Approach 1: the envelope, and the power laws along its bracketed part.

    Attributes
    ----------
    compute, loss, n_params, tokens : ndarray, shape (n_points,)
        The envelope where a smaller and a larger model compete with the best one.
    n_sizes : int
        Distinct N that are best somewhere.
    trends : Trends
        N*(C), D*(C), L*(C).
    status : str
        ``converged``, or ``ill_conditioned`` where fewer than four sizes are ever best, the
        exponent's interval says nothing, or curves had not decayed.
    warnings : tuple of FitWarning
    held_out : HeldOut or None
        How well the envelope at smaller compute predicts its last fifth, in ln C.
    level : float
    """

    compute: Array = field(repr=False)
    loss: Array = field(repr=False)
    n_params: Array = field(repr=False)
    tokens: Array = field(repr=False)
    n_sizes: int
    trends: Trends = field(repr=False)
    flops_per_token: FlopsPerToken = field(repr=False)
    scope: Scope = field(repr=False)
    status: IsoFlopStatus
    warnings: tuple[FitWarning, ...]
    held_out: HeldOut | None = None
    level: float = 0.9

    @property
    def unit(self) -> str:
        """What D counts, as the curves say."""
        return self.scope.unit

    @property
    def exponent_N(self) -> float:
        """The exponent a of N* ∝ C^a."""
        return self.trends.n_params.exponent

    @property
    def exponent_D(self) -> float:
        """The exponent b of D* ∝ C^b."""
        return self.trends.n_tokens.exponent

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Intervals of ``exponent_N`` and ``exponent_D``."""
        return {
            "exponent_N": self.trends.n_params.exponent_interval,
            "exponent_D": self.trends.n_tokens.exponent_interval,
        }

    def predict(self, compute: ArrayLike) -> Array:
        """Return the loss L*(C) of compute-optimal runs, nats per token."""
        return self.trends.loss.at(compute)

    def allocate(self, compute: float) -> Allocation:
        """Divide `compute`, FLOP: N* from its power law, D* = C / (FLOP per token at N*).

        The fit's doubts are among the answer's notes.
        """
        found = answer_from_trends(compute, self.trends, self.flops_per_token, scope=self.scope)
        notes = (*self.warnings, *found.notes)
        return replace(found, held_out=self.held_out, notes=notes)

    def _repr_html_(self) -> str:
        told = str(self).split("\n! ")[0].split("\n")
        notes = "".join(f"<li>{escape(str(note))}</li>" for note in self.warnings)
        return (
            f"<p><b>{escape(told[0])}</b>"
            f"{''.join('<br>' + escape(line.strip()) for line in told[1:])}</p>"
            f"{'<ul>' + notes + '</ul>' if notes else ''}"
        )

    _repr_pretty_ = plain_text

    def __str__(self) -> str:
        lo, hi = self.intervals["exponent_N"]
        ends = f"  ({self.level:.0%}: {lo:.3f} to {hi:.3f})" if np.isfinite(lo + hi) else ""
        return "\n".join(
            [
                f"Approach 1 (lower envelope): {self.status}, {self.n_sizes} sizes on it",
                f"  N* ∝ C^a, a = {self.exponent_N:.3f}{ends}",
                *(f"! {note}" for note in self.warnings),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Bundle:
    """Every curve's smoothed loss on one grid of ln C; NaN where a curve does not reach.

    ``loss`` has shape (n_curves, n_grid); ``size`` maps curves to ``sizes``.
    """

    log_c: Array
    loss: Array
    size: NDArray[np.intp]
    sizes: Array


def fit_envelope(
    runs: RunTable | pd.DataFrame | Sequence[Curve],
    *,
    bootstrap: int = 200,
    level: float = 0.9,
    seed: int = 0,
    accept_undecayed: bool = False,
) -> EnvelopeFit:
    """Fit Approach 1: the lower envelope of training curves, and N*(C), D*(C), L*(C) along it.

    Each curve is smoothed by isotonic regression (loss never rises), seeds of one size are
    averaged, and only those C count at which a smaller and a larger model compete with the best.

    Parameters
    ----------
    runs : RunTable, DataFrame or sequence of Curve
        A table is read as curves where one trunk (same N, seed and group) has a run at several D:
        each is then the end of a decayed schedule, unless the column ``schedule`` says constant.
    bootstrap : int
        Resamples of whole curves.
    level : float
        Two-sided coverage of the intervals.
    seed : int
    accept_undecayed : bool
        Go on, with a warning, with curves read off in the middle of their schedule.

    Raises
    ------
    FitError
        If the curves' schedules had not decayed, unless `accept_undecayed`.
    TooFewRunsError
        If there are fewer than three sizes, or no C at which sizes compete.

    References
    ----------
    Hoffmann et al. 2022, §3.1.
    """
    if isinstance(runs, Sequence):
        curves, unknown = list(runs), []
    else:
        table = as_table(runs)
        curves, unknown = curves_of_trunks(table), _unknown_schedules(table)
    undecayed = _check_schedules(curves, accept_undecayed)
    warnings = [*undecayed, *unknown]
    bundle = _bundle(curves)
    everything = np.ones(len(curves))
    rows, best, loss = _envelope(bundle, everything)
    n_sizes = len(np.unique(best))
    if len(rows) < _MIN_POINTS or n_sizes < _MIN_SIZES:
        raise TooFewRunsError(
            f"sizes that are best at some compute, with a smaller and a larger one to compare: "
            f"{n_sizes}; an envelope needs {_MIN_SIZES}. Add curves of more sizes that overlap in "
            "C, or use fit_law."
        )
    per_token = FlopsPerToken.of(*_ends(curves))
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(curves), np.full(len(curves), 1 / len(curves)), size=bootstrap)
    trends = _trends(bundle, rows, best, loss, draws.astype(float), per_token, level)
    if n_sizes == _MIN_SIZES:
        warnings.append(
            FitWarning(
                code="few_sizes_on_envelope",
                message=f"{n_sizes} sizes are ever the best between two others, so N*(C) is "
                "a staircase of that many steps.",
                remedy="Add sizes between them.",
                values={"sizes": n_sizes},
            )
        )
    vague = list(wide_exponent(trends))
    warnings += vague
    n = bundle.sizes[best]
    compute = np.exp(bundle.log_c[rows])
    return EnvelopeFit(
        compute=compute,
        loss=loss,
        n_params=n,
        tokens=compute / per_token.at(n),
        n_sizes=n_sizes,
        trends=trends,
        flops_per_token=per_token,
        scope=_scope(curves),
        status="ill_conditioned" if n_sizes <= _MIN_SIZES or vague or undecayed else "converged",
        warnings=tuple(warnings),
        held_out=_hold_out(compute, loss),
        level=level,
    )


def _hold_out(compute: Array, loss: Array) -> HeldOut | None:
    """Predict the last fifth of the envelope, in ln C, from the rest."""
    log_c = np.log(compute)
    threshold = log_c[0] + (1.0 - _HIDDEN) * (log_c[-1] - log_c[0])
    hide = log_c >= threshold
    if np.count_nonzero(~hide) < _MIN_POINTS:
        return None
    seen = np.ones((1, int((~hide).sum())), dtype=bool)
    trend = _loss_trend(log_c[None, ~hide], loss[None, ~hide], seen, 0.9)
    error = np.log(loss[hide] / trend.at(compute[hide]))
    return HeldOut(
        n_runs=int((~hide).sum()),
        n_hidden=int(hide.sum()),
        threshold=float(np.exp(threshold)),
        extrapolation=float(compute[-1] / compute[~hide].max()),
        rmse=float(np.sqrt(np.mean(error**2))),
        bias=float(error.mean()),
        hidden="the last fifth of the envelope",
    )


def curves_of_trunks(runs: RunTable) -> list[Curve]:
    """Return a decayed curve for each trunk that has runs at two or more D.

    A trunk is the runs of one N, seed and group; its points are their final losses. They are those
    of a decayed schedule unless the column ``schedule`` says constant.
    """
    import pandas as pd

    names = ["N", "seed", "group", "D", "C", "loss", "schedule"]
    frame = pd.DataFrame({name: runs.column(name) for name in names})
    curves = []
    for k, (_, part) in enumerate(frame.groupby(["N", "seed", "group"], dropna=False)):
        points = part.groupby("D")[["C", "loss"]].mean()
        if len(points) > 1:
            curves.append(
                Curve(
                    run_id=f"trunk-{k}",
                    N=float(part["N"].iloc[0]),
                    tokens=points.index.to_numpy(float),
                    loss=points["loss"].to_numpy(float),
                    flops=points["C"].to_numpy(float),
                    decayed=not any(map(_is_constant, part["schedule"])),
                    unit=runs.unit,
                )
            )
    if len({curve.N for curve in curves}) < _MIN_SIZES:
        raise TooFewRunsError(
            f"{len(curves)} trunks have runs at several D, and an envelope needs three sizes of "
            "them. Pass training curves: fit_envelope([Curve(...), ...]), or use fit_isoflop."
        )
    return curves


def _is_constant(schedule: object) -> bool:
    return str(schedule).lower().startswith(("const", "none", "undecayed"))


def _unknown_schedules(runs: RunTable) -> list[FitWarning]:
    """Return a warning where the table does not say that learning rates had decayed."""
    known = np.isin(runs.column("schedule").astype(str), ["", "nan"], invert=True)
    if known.all():
        return []
    return [
        FitWarning(
            code="unknown_schedule",
            message=f"{int((~known).sum())} of {len(runs)} runs do not say by which schedule their "
            "learning rate fell, and an envelope holds only for losses at the end of a decay.",
            remedy="Name it in a column `schedule` (such as cosine, wsd or constant), or trust "
            "Approaches 2 and 3.",
            values={"runs": float((~known).sum())},
        )
    ]


def _check_schedules(curves: Sequence[Curve], accept: bool) -> list[FitWarning]:
    undecayed = [curve.run_id for curve in curves if not curve.decayed]
    if not undecayed:
        return []
    fact = (
        f"{len(undecayed)} of {len(curves)} curves are read off in the middle of their schedule "
        f"({', '.join(undecayed[:3])}{', ...' if len(undecayed) > 3 else ''}): before the learning "
        "rate has decayed the loss is too high, most of all for large models."
    )
    if not accept:
        raise FitError(
            f"{fact} Use fit_law or fit_isoflop on the final losses, pass curves with "
            "decayed=True if each point is one, or accept_undecayed=True to go on regardless."
        )
    return [
        FitWarning(
            code="undecayed_schedule",
            message=fact,
            remedy="Trust Approaches 2 and 3 instead.",
            run_ids=tuple(undecayed),
        )
    ]


def _ends(curves: Sequence[Curve]) -> tuple[Array, Array, Array]:
    n, d, c = zip(*((x.N, x.tokens[-1], x.flops[-1]) for x in curves), strict=True)
    return np.array(n), np.array(d), np.array(c)


def _scope(curves: Sequence[Curve]) -> Scope:
    n = [curve.N for curve in curves]
    return Scope(
        N=(min(n), max(n)),
        D=(min(c.tokens[0] for c in curves), max(float(c.tokens[-1]) for c in curves)),
        C=(min(c.flops[0] for c in curves), max(float(c.flops[-1]) for c in curves)),
        unit=curves[0].unit,
    )


def _bundle(curves: Sequence[Curve]) -> _Bundle:
    sizes, size = np.unique([curve.N for curve in curves], return_inverse=True)
    if len(sizes) < _MIN_SIZES:
        raise TooFewRunsError(
            f"an envelope needs curves of {_MIN_SIZES} sizes or more, and there are {len(sizes)}. "
            "Train other sizes."
        )
    low = min(np.log(curve.flops[0]) for curve in curves)
    high = max(np.log(curve.flops[-1]) for curve in curves)
    grid = np.linspace(low, high, _GRID)
    loss = np.full((len(curves), _GRID), np.nan)
    for k, curve in enumerate(curves):
        known = np.isfinite(curve.loss) & (curve.flops > 0)
        log_c = np.log(curve.flops[known])
        smooth = isotonic_regression(curve.loss[known], increasing=False).x
        inside = (grid >= log_c[0] - 1e-9) & (grid <= log_c[-1] + 1e-9)
        loss[k, inside] = np.interp(grid[inside], log_c, smooth)
    return _Bundle(log_c=grid, loss=loss, size=size, sizes=sizes)


def _envelope(bundle: _Bundle, weight: Array) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """Return grid points where the best size is bracketed, that size's index, and its loss."""
    member = np.zeros((len(bundle.sizes), len(weight)))
    member[bundle.size, np.arange(len(weight))] = weight
    known = np.isfinite(bundle.loss)
    count = member @ known
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, member @ np.where(known, bundle.loss, 0.0) / count, np.inf)
    drawn = np.flatnonzero(member.sum(axis=1) > 0)
    mean = mean[drawn]
    best = np.argmin(mean, axis=0)
    grid = np.arange(mean.shape[1])
    inner = (best > 0) & (best < len(drawn) - 1)
    below = np.isfinite(mean[np.maximum(best - 1, 0), grid])
    above = np.isfinite(mean[np.minimum(best + 1, len(drawn) - 1), grid])
    rows = np.flatnonzero(inner & below & above)
    return rows, drawn[best[rows]], mean[best[rows], rows]


def _trends(
    bundle: _Bundle,
    rows: NDArray[np.intp],
    best: NDArray[np.intp],
    loss: Array,
    draws: Array,
    per_token: FlopsPerToken,
    level: float,
) -> Trends:
    """Fit the power laws to the envelope and to that of every resample, on one grid."""
    shape = (1 + len(draws), len(bundle.log_c))
    log_n, value = np.zeros(shape), np.ones(shape)
    valid = np.zeros(shape, dtype=bool)
    found = [(rows, best, loss), *(_envelope(bundle, draw) for draw in draws)]
    for k, (at, size, height) in enumerate(found):
        log_n[k, at], value[k, at] = np.log(bundle.sizes[size]), height
        valid[k, at] = len(at) >= _MIN_POINTS
    log_n, value, valid = log_n[:, rows], value[:, rows], valid[:, rows]
    log_c = np.broadcast_to(bundle.log_c[rows], log_n.shape)
    log_d = log_c - np.log(per_token.at(np.exp(log_n)))
    return Trends(
        n_params=fit_trend(log_c, log_n, valid, level),
        n_tokens=fit_trend(log_c, log_d, valid, level),
        loss=_loss_trend(log_c, value, valid, level),
        usable=float((valid[1:].sum(axis=1) >= _MIN_POINTS).mean()) if len(draws) else np.nan,
    )


def _loss_trend(log_c: Array, loss: Array, valid: NDArray[np.bool_], level: float) -> Trend:
    every = max(1, log_c.shape[1] // 40)
    return fit_loss_trend(log_c[:, ::every], loss[:, ::every], valid[:, ::every], level)
