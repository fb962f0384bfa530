"""What a table can tell before anything is fitted: its budgets, its spread, its mixtures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..budgets import infer_budgets
from ..errors import counted
from ..laws import DataConstrainedLaw, Law
from ..records import RunTable
from .compute import SIX_ND, FlopModel
from .notes import FitWarning, named

Floats = NDArray[np.float64]

COLLINEAR = 0.05
"""Spread, in e-folds, of ln N and ln D across their common line below which they are one line."""
FEWEST_GROUPS = 5
"""Groups below which resampling them says nothing."""
_TOO_SMALL = 1000.0
_MOST_COMPARED = 20_000
_COPIED_SHARE = 0.05
"""Below it, equal losses may be seeds whose losses were rounded."""
_SHORT = 0.8
_OFF_6ND = 0.1
_SLICE = 3
"""Sizes that make an IsoFLOP slice."""


def is_collinear(n_params: Floats, n_tokens: Floats) -> bool:
    """Return whether ln N and ln D lie on one line, as for a fixed D/N."""
    x, y = np.log(n_params), np.log(n_tokens)
    x, y = x - x.mean(), y - y.mean()
    spread_x, spread_y, shared = x @ x, y @ y, x @ y
    wide = 0.5 * (spread_x + spread_y) + np.hypot(0.5 * (spread_x - spread_y), shared)
    narrow = max(spread_x + spread_y - wide, 0.0) / max(len(x) - 1, 1)
    return bool(np.sqrt(narrow) < COLLINEAR)


def budgets_of(table: RunTable) -> Floats:
    """Return each run's planned budget, or the one its compute clusters in, NaN where none."""
    budgets = np.asarray(table.column("budget"), dtype=float)
    if np.isfinite(budgets).any():
        return budgets
    compute = np.where(np.isfinite(table.C), table.C, 6.0 * table.N * table.D)
    return infer_budgets(table.N, compute)


def check_design(law: Law, table: RunTable, flops: FlopModel = SIX_ND) -> Iterator[FitWarning]:
    """Yield what a person should know about the runs themselves.

    `flops` is how answers turn N and D into C: only of 6·N·D is it said that C differs from it.
    """
    yield from _units(law, table)
    yield from _copies(table)
    yield from _mixtures(table)
    yield from _groups(table)
    yield from _early_stops(table)
    if law.answers_allocation:
        yield from _brackets(table)
        if flops == SIX_ND:
            yield from _compute(table)
    if law.inputs == ("C",):
        yield from _off_frontier(table)
    if not isinstance(law, DataConstrainedLaw):
        yield from _repeats(table)


def _units(law: Law, table: RunTable) -> Iterator[FitWarning]:
    small = [
        f"{name} is {values.max():.3g} at most"
        for name, values in (("N", table.N), ("D", table.D))
        if name in law.inputs and values.max() < _TOO_SMALL
    ]
    if small:
        yield FitWarning(
            code="units",
            message=f"{' and '.join(small)}, as if counted in millions or billions: parameters "
            "and budgets then mean something else than they say.",
            remedy=f"Give N in parameters and D in {table.unit}.",
        )


def _copies(table: RunTable) -> Iterator[FitWarning]:
    if len(table) > _MOST_COMPARED:
        return
    # Few runs are equal in these three, and only they can be equal in all.
    three = np.stack([table.D, table.N, table.L])
    order = np.lexsort(three)
    equal = (np.diff(three[:, order]) == 0).all(axis=0)
    if not equal.any():
        return
    rows = np.sort(order[np.append(equal, False) | np.append(False, equal)])
    keys = ("N", "D", "C", "budget", "lr", "unique_tokens", "loss")
    cells = np.nan_to_num(np.stack([table.column(key)[rows].astype(float) for key in keys]))
    order = np.lexsort(cells)
    same = (np.diff(cells[:, order]) == 0).all(axis=0)
    again = rows[np.sort(order[1:][same])]
    if not len(again) or len(again) < _COPIED_SHARE * len(table):
        return
    ids = np.array(table.run_ids, dtype=object)[again].tolist()
    yield FitWarning(
        code="copies",
        message=f"{counted(len(ids), 'run')} {'equals' if len(ids) == 1 else 'equal'} another in "
        f"N, D, C and loss to the last digit ({named(ids)}), and each counts as one more: "
        "intervals are too narrow if they are copies.",
        remedy="Leave copies out: runs.exclude(ids, reason='copy').",
        run_ids=tuple(ids),
    )


def _mixtures(table: RunTable) -> Iterator[FitWarning]:
    schedules = sorted({str(s) for s in set(table.column("schedule"))} - {""})
    if len(schedules) > 1:
        yield FitWarning(
            code="mixed_schedules",
            message=f"The runs mix learning-rate schedules ({', '.join(schedules)}), whose losses "
            "differ at equal N and D.",
            remedy="Fit each schedule by itself: runs.where(schedule=[...]).",
        )
    n = table.N
    counts = {
        name: np.abs(table.column(name).astype(float) / n - 1.0) < 1e-3
        for name in ("n_total", "n_non_embedding", "n_matmul")
    }
    pure = any(same.all() for same in counts.values())
    used = [name.removeprefix("n_") for name, same in counts.items() if same.any()]
    told: list[str] = []
    if "convention" in table.columns:
        told = sorted({str(c) for c in table.column("convention")} - {"", "nan", "None"})
    if (len(used) > 1 and not pure) or len(told) > 1:
        yield FitWarning(
            code="mixed_conventions",
            message=f"The runs count N by different conventions ({', '.join(told or used)}).",
            remedy="Bring them to one: runs.with_convention('total')."
            if len(used) > 1 and not pure
            else f"Fit each by itself: runs.where(convention=['{told[0]}']).",
        )


def _groups(table: RunTable) -> Iterator[FitWarning]:
    labels = table.column("group")
    groups = {str(label) for label in set(labels)}
    if "" not in groups and 1 < len(groups) < FEWEST_GROUPS and len(groups) < len(labels):
        yield FitWarning(
            code="few_groups",
            message=f"The runs come from {len(groups)} groups that share their error, too few to "
            "resample: intervals, from single runs unless told otherwise, are too narrow.",
            remedy=f"Train {FEWEST_GROUPS} groups (seeds or trunks) or more.",
            values={"groups": float(len(groups))},
        )


def _early_stops(table: RunTable) -> Iterator[FitWarning]:
    ids = table.column("run_id")
    status = table.column("status")
    odd = [s for s in set(status) if str(s) not in ("finished", "", "nan")]
    unfinished: list[str] = ids[np.isin(status.astype(str), odd)].tolist() if odd else []
    budget = np.asarray(table.column("budget"), dtype=float)
    with np.errstate(invalid="ignore"):
        short = ids[np.asarray(table.C, float) < _SHORT * budget]
    if 0 < len(short) < len(ids) / 2 or len(unfinished):
        stopped = list(dict.fromkeys([*unfinished, *(short if len(short) < len(ids) / 2 else [])]))
        yield FitWarning(
            code="stopped_early",
            message=f"{counted(len(stopped), 'run')} stopped before the end of the planned budget: "
            f"{named(stopped)}.",
            remedy="A run whose learning rate had not decayed reads too high: finish or exclude "
            "it.",
            run_ids=tuple(stopped),
        )


def _brackets(table: RunTable) -> Iterator[FitWarning]:
    budgets, n = budgets_of(table), table.N
    order = np.lexsort((table.L, budgets))  # NaN comes last
    sliced = order[: np.count_nonzero(np.isfinite(budgets))]
    if not len(sliced):
        return
    starts = np.flatnonzero(np.diff(budgets[sliced], prepend=-np.inf))
    if len(starts) == 2 and len(sliced) == len(budgets):
        yield FitWarning(
            code="two_budgets",
            message="There are only two compute budgets, so nothing tests that the loss follows a "
            "power law between and beyond them.",
            remedy="Add a third budget, larger than both.",
        )
    ids, best_of = table.run_ids, sliced[starts]
    smallest = np.minimum.reduceat(n[sliced], starts)
    largest = np.maximum.reduceat(n[sliced], starts)
    on_edge = (n[best_of] == smallest) | (n[best_of] == largest)
    for best in best_of[:50][on_edge[:50]]:
        budget = budgets[best]
        sizes = np.unique(n[budgets == budget])
        if len(sizes) < 3:
            continue
        low = bool(n[best] == sizes[0])
        side, other = ("smallest", "smaller") if low else ("largest", "larger")
        bound = f"N < {sizes[0]:.3g}" if low else f"N > {sizes[-1]:.3g}"
        yield FitWarning(
            code="minimum_not_bracketed",
            message=f"At C = {budget:.3g} the best run is the {side} (N = {n[best]:.3g}): the "
            "minimum is not bracketed.",
            remedy=f"Add {other} models at this budget: {bound}.",
            run_ids=(str(ids[best]),),
            values={
                "budget": float(budget),
                "smallest": float(sizes[0]),
                "largest": float(sizes[-1]),
                "side": -1.0 if low else 1.0,
            },
        )


def _off_frontier(table: RunTable) -> Iterator[FitWarning]:
    """Warn where a law of C alone is given the whole of IsoFLOP slices."""
    budgets, n = budgets_of(table), table.N
    slices = [np.unique(n[budgets == c]) for c in np.unique(budgets[np.isfinite(budgets)])]
    wide = sum(len(sizes) >= _SLICE for sizes in slices)
    if wide:
        yield FitWarning(
            code="not_the_frontier",
            message=f"{counted(wide, 'budget')} of {len(slices)} {'has' if wide == 1 else 'have'} "
            "runs of several sizes, and a law of C alone passes between them: its loss is that of "
            "a middling size, above what the best reaches.",
            remedy="For the loss of the best size use fit_isoflop(runs).predict(C), or leave only "
            "the best run of each budget.",
            values={"budgets": float(wide)},
        )


def _compute(table: RunTable) -> Iterator[FitWarning]:
    compute = np.asarray(table.C, float)
    known = np.isfinite(compute) & (compute > 0)
    if not known.any():
        return
    ratio = (compute / (6.0 * table.N * table.D))[known]
    if ratio.min() >= 1.0 - _OFF_6ND and ratio.max() <= 1.0 + _OFF_6ND:
        return
    low, middle, high = np.quantile(ratio, [0.05, 0.5, 0.95])
    if low < 1.0 - _OFF_6ND or high > 1.0 + _OFF_6ND:
        yield FitWarning(
            code="compute_differs_from_6nd",
            message=f"The runs' C is {middle:.2g} times 6·N·D ({low:.2g} to {high:.2g}).",
            remedy="Budgets in answers mean 6·N·D; pass flops='counted' to use the runs' own.",
            values={"low": float(low), "median": float(middle), "high": float(high)},
        )


def _repeats(table: RunTable) -> Iterator[FitWarning]:
    unique = np.asarray(table.column("unique_tokens"), dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        epochs = table.D / unique
    repeated = np.flatnonzero(np.isfinite(epochs) & (epochs > 1.05))
    if len(repeated):
        ids = np.array(table.run_ids, dtype=object)[repeated]
        yield FitWarning(
            code="repeated_data",
            message=f"{counted(len(ids), 'run')} saw their data more than once (up to "
            f"{epochs[repeated].max():.3g} epochs): repeated {table.unit} are worth less than new "
            "ones.",
            remedy="Fit DataConstrainedLaw, or only runs of one epoch.",
            run_ids=tuple(ids),
        )
