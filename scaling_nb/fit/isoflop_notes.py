"""What is wrong with an Approach 2 fit: its status, its sentences, and its own bias.

On a noise-free surface a parabola's vertex is off wherever the valley is not symmetric (α ≠ β)
or the grid is wide or off-centre. The surface fitted to the same runs says by how much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import FitError, counted
from ..laws import ChinchillaLaw
from ..records import RunTable
from .design import check_design
from .notes import FitWarning
from .outliers import OUTLIER
from .parabola import IsoFlopMinimum, Parabola
from .parametric import fit_law
from .slices import Resampler
from .trend import Trends

IsoFlopStatus = Literal["converged", "ill_conditioned", "not_identified"]

_MIN_USABLE = 0.95
_WIDE_EXPONENT = 0.5
"""Width of the exponent's interval at which it no longer tells Kaplan's .73 from Hoffmann's .5."""
_MATTERING_EXPONENT = 0.01
_MATTERING_FACTOR = 1.1
_ABOUT_RUNS = frozenset({"mixed_schedules", "mixed_conventions", "stopped_early", "repeated_data"})
DOUBTS_OF_ANSWER = frozenset(
    {
        "parabola_bias",
        "two_optima",
        "no_residual",
        "minima_lost_in_noise",
        "interval_says_nothing",
        "outliers",
    }
)
"""Warnings of a fit that go with every answer it gives: each may move N* itself."""
_NO_NOISE = 1e-9
_MOST_NAMED = 5
_GROSS = 0.3
"""Log residual beyond which a run diverged, rather than being a little off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoFlopBias:
    """How far Approach 2 is off on a noise-free surface sampled at these very runs.

    Attributes
    ----------
    exponent_N : float
        Parabola exponent minus true exponent, both of the fitted surface.
    n_params_factor : tuple of float
        Parabola N* over true N* at each optimum, budgets ascending.
    """

    exponent_N: float
    n_params_factor: tuple[float, ...]


def estimate_bias(runs: RunTable, optimal: Sequence[Parabola]) -> IsoFlopBias | None:
    """Put Approach 2 to the noise-free losses of the fitted surface, at these very runs.

    Parameters
    ----------
    runs : RunTable
    optimal : sequence of Parabola
        The slices that have an optimum, budgets ascending.

    Returns
    -------
    IsoFlopBias or None
        None where no surface can be fitted, or a noise-free parabola has no vertex.
    """
    try:
        surface = fit_law(runs, law=ChinchillaLaw(), bootstrap=0)
    except FitError:
        return None
    seen, true = [], []
    for fit in optimal:
        part = fit.slice
        log_d = part.log_c - part.log_flops_per_token
        clean = np.asarray(surface.predict(np.exp(part.log_n), np.exp(log_d)))[fit.keep]
        seen.append(fit.vertices(clean[None])[0][0])
        grid = np.linspace(part.log_n.min(), part.log_n.max(), 512)
        log_tokens = part.log_c.mean() - part.along(part.log_flops_per_token, grid)
        along = np.asarray(surface.predict(np.exp(grid), np.exp(log_tokens)))
        true.append(grid[np.argmin(along)])
    log_c = np.log([fit.slice.budget for fit in optimal])
    pair = np.stack([seen, true])
    if not np.isfinite(pair).all():
        return None
    slopes = np.polyfit(log_c - log_c.mean(), pair.T, 1)[0]
    return IsoFlopBias(
        exponent_N=float(slopes[0] - slopes[1]),
        n_params_factor=tuple(float(v) for v in np.exp(pair[0] - pair[1])),
    )


def describe_runs(runs: RunTable, fits: Sequence[Parabola]) -> list[FitWarning]:
    """Return what a person should know about the runs: mixtures, early stops, repeats, outliers."""
    notes = [n for n in check_design(ChinchillaLaw(), runs) if n.code in _ABOUT_RUNS]
    return [*notes, *_mixed_rates(runs, fits), *_outliers(runs, fits)]


def _mixed_rates(runs: RunTable, fits: Sequence[Parabola]) -> Iterator[FitWarning]:
    rates = runs.column("lr").astype(float)
    mixed = []
    for fit in fits if np.isfinite(rates).any() else ():
        size, rate = fit.slice.log_n, rates[fit.slice.rows]
        order = np.lexsort((rate, size))
        if ((np.diff(size[order]) == 0) & (np.diff(rate[order]) > 0)).any():
            mixed.append(fit.slice.budget)
    if mixed:
        yield FitWarning(
            code="mixed_learning_rates",
            message="Runs of one size and budget differ in learning rate at C = "
            f"{', '.join(f'{c:.3g}' for c in mixed)} FLOP, and count as repeats here.",
            remedy="Keep the best rate of each size, and exclude the others.",
        )


def _outliers(runs: RunTable, fits: Sequence[Parabola]) -> Iterator[FitWarning]:
    """Yield a warning that names each slice's worst run, if it lies far from its parabola.

    Only the worst: it bends the parabola, and its neighbours seem far off too. Where several
    slices are bent the typical distance is no measure; then the surface through all runs is.
    """
    far = _far_from_surface(runs)
    scores = [
        np.abs(fit.loss / fit.fitted - 1.0) / np.sqrt(np.maximum(1.0 - fit.leverage, 0.05))
        for fit in fits
        if len(fit.keep) > 3
    ]
    spread = 1.4826 * float(np.median(np.concatenate(scores))) if scores else 0.0
    for fit, score in zip((f for f in fits if len(f.keep) > 3), scores, strict=True):
        worst = int(np.argmax(score))
        if spread > _NO_NOISE and score[worst] > OUTLIER * spread:
            far.add(int(fit.slice.rows[fit.keep[worst]]))
    if not far:
        return
    rows = sorted(far)
    ids = [str(runs.run_ids[i]) for i in rows]
    told = [
        f"{name} (loss {runs.L[i]:.4g} at C = {runs.C[i]:.3g})"
        for name, i in zip(ids[:_MOST_NAMED], rows, strict=False)
    ]
    more = f" and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else ""
    yield FitWarning(
        code="outliers",
        message=f"{len(rows)} of {len(runs)} runs {'lies' if len(rows) == 1 else 'lie'} more than "
        f"{OUTLIER:g} robust standard deviations from their neighbours: {'; '.join(told)}{more}.",
        remedy="None was dropped. If a run diverged, runs.exclude(ids, reason='diverged').",
        run_ids=tuple(ids),
        values={"n_outliers": float(len(rows))},
    )


def _far_from_surface(runs: RunTable) -> set[int]:
    """Return the runs whose loss is grossly off the surface fitted to all, as rows."""
    try:
        residual = fit_law(runs, law=ChinchillaLaw(), bootstrap=0).residuals()
    except FitError:
        return set()
    residual = np.abs(residual - np.median(residual))
    spread = 1.4826 * float(np.median(residual))
    return set(np.flatnonzero(residual > max(OUTLIER * spread, _GROSS)).tolist())


def wide_exponent(trends: Trends) -> Iterator[FitWarning]:
    """Yield a warning where the interval of the exponent says nothing."""
    lo, hi = trends.n_params.exponent_interval
    if hi - lo > _WIDE_EXPONENT:
        yield FitWarning(
            code="interval_says_nothing",
            message=f"The exponent of N* lies anywhere from {lo:.2f} to {hi:.2f}.",
            remedy="Add budgets further apart, sizes closer to the minima, or seeds.",
            values={"low": lo, "high": hi},
        )


def judge(
    minima: Sequence[IsoFlopMinimum],
    trends: Trends | None,
    sampler: Resampler,
    bootstrap: int,
    bias: IsoFlopBias | None,
    inferred: bool,
) -> tuple[IsoFlopStatus, tuple[FitWarning, ...]]:
    """Return the status and every sentence the person should read."""
    notes = [m.note for m in minima if m.note]
    if inferred:
        notes.append(
            FitWarning(
                code="budgets_inferred",
                message=f"There is no budget column: {len(minima)} slices were read off clusters "
                "of C.",
                remedy="Name them in a column `budget` if that is wrong.",
            )
        )
    n = sum(m.status == "optimum" for m in minima)
    if trends is None:
        few = FitWarning(
            code="too_few_optima",
            message=f"{n} of {counted(len(minima), 'budget')} {'has' if n == 1 else 'have'} an "
            "optimum, and a power law needs two: there is no N*(C).",
            remedy="Bracket the minimum at more budgets, or use fit_law on all runs."
            if len(minima) > 1
            else "Add runs at two or more other budgets, each 3 to 10 times apart.",
            values={"optima": n, "budgets": len(minima)},
        )
        return "not_identified", (*notes, few)
    weak = list(_weaknesses(n, trends, sampler, bootstrap))
    status: IsoFlopStatus = "ill_conditioned" if weak else "converged"
    return status, (*notes, *weak, *_bias_notes(bias, trends))


def _weaknesses(
    n_optima: int, trends: Trends, sampler: Resampler, bootstrap: int
) -> Iterator[FitWarning]:
    if n_optima == 2:
        yield FitWarning(
            code="two_optima",
            message="Two optima fix the power law exactly, so nothing tests whether it is one.",
            remedy="Add a third budget before extrapolating.",
        )
    if not bootstrap:
        return
    if not sampler.degrees:
        yield FitWarning(
            code="no_residual",
            message="Every parabola passes through its three runs, so no interval can be had.",
            remedy="Add sizes or seeds.",
        )
        return
    if trends.usable < _MIN_USABLE:
        yield FitWarning(
            code="minima_lost_in_noise",
            message=f"In {1 - trends.usable:.0%} of the resamples fewer than two budgets keep "
            "their minimum; the intervals describe the others.",
            remedy="Add sizes or seeds around the minima.",
            values={"share": 1 - trends.usable},
        )
    yield from wide_exponent(trends)


def _bias_notes(bias: IsoFlopBias | None, trends: Trends) -> Iterator[FitWarning]:
    if bias is None:
        return
    lo, hi = trends.n_params.exponent_interval
    worst = max(bias.n_params_factor, key=lambda factor: abs(np.log(factor)))
    tolerated = max(_MATTERING_EXPONENT, 0.25 * (hi - lo) if np.isfinite(hi - lo) else 0.0)
    if abs(bias.exponent_N) <= tolerated and abs(np.log(worst)) < np.log(_MATTERING_FACTOR):
        return
    yield FitWarning(
        code="parabola_bias",
        message="Approach 2 is biased on this grid (wide, off-centre, or alpha unlike beta): on "
        f"the fitted surface without noise its N* is {'up to' if worst > 1 else 'as low as'} "
        f"{worst:.2f} times the true one and its "
        f"exponent {bias.exponent_N:+.3f} off.",
        remedy="Narrow the window, centre the grid, or prefer fit_law.",
        values={"n_params_factor": worst, "exponent_N": bias.exponent_N},
    )
