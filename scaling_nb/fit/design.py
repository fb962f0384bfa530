"""What a table can tell before anything is fitted: its budgets, its spread, its mixtures."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np
from numpy.typing import NDArray

from ..budgets import infer_budgets
from ..errors import FitError, TooFewRunsError, counted
from ..laws import Constraints, DataConstrainedLaw, Law
from ..records import RunTable
from .compute import SIX_ND, FlopModel
from .notes import FitWarning

Floats = NDArray[np.float64]

ONE_BUDGET = 1.5
"""Runs whose compute lies within this factor are one budget."""
COLLINEAR = 0.05
"""Spread, in e-folds, of ln N and ln D across their common line below which they are one line."""
FEWEST_GROUPS = 5
"""Groups below which resampling them says nothing."""
_TOO_SMALL = 1000.0
_LEAST_LOSS = 1e-9
_MOST_LOSS = 1e12
_MOST_COMPARED = 20_000
_COPIED_SHARE = 0.05
"""Below it, equal losses may be seeds whose losses were rounded."""
_SHORT = 0.8
_OFF_6ND = 0.1
_MOST_NAMED = 5
_SLICE = 3
"""Sizes that make an IsoFLOP slice."""


def require_enough(law: Law, table: RunTable, constraints: Constraints) -> None:
    """Raise if the runs cannot determine the law at all, or the constraints make no sense.

    Raises
    ------
    TooFewRunsError
        With what to add.
    FitError
        If a held or shared parameter is not the law's, or out of its bounds, or losses are in a
        unit in which they cannot be told apart.
    """
    known = {p.name: p for p in law.parameters}
    if unknown := [n for n in (*constraints.fixed, *constraints.shared) if n not in known]:
        raise FitError(
            f"{law.name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}."
        )
    if both := [n for n in constraints.shared if n in constraints.fixed]:
        raise FitError(f"{', '.join(both)} is both fixed and shared. Fix it or share it.")
    if unlike := [n for n in constraints.shared if not known[n].exponent]:
        raise FitError(
            f"{', '.join(unlike)} cannot share its value: only exponents are alike. Share those, "
            "such as ('alpha', 'beta')."
        )
    for name, value in constraints.fixed.items():
        if not (np.isfinite(value) and known[name].low <= value <= known[name].high):
            raise FitError(
                f"fixed {name} = {value}, but it must lie between {known[name].low:g} and "
                f"{known[name].high:g}."
            )
    low, high = float(table.L.min()), float(table.L.max())
    if high < _LEAST_LOSS or low > _MOST_LOSS:
        raise FitError(
            f"the losses are {low:.3g} to {high:.3g}, where differences are lost in rounding. Give "
            f"them {10.0 ** -np.floor(np.log10(high)):.0e} times as large; E, A and B are then too."
        )
    n_free = len(law.parameters) - len(constraints.fixed) - max(0, len(constraints.shared) - 1)
    if len(table) < max(n_free, 1):
        raise TooFewRunsError(
            f"{law.name} has {n_free} free parameters, but only "
            f"{counted(len(table), 'run')} {'counts' if len(table) == 1 else 'count'}. Add at "
            f"least {counted(n_free - len(table), 'finished run')} (10 or more serve better), or "
            "hold parameters with fixed=."
        )
    for name, exponent in (("N", "alpha"), ("D", "beta")):
        if name not in law.inputs or not law.answers_allocation or exponent in constraints.fixed:
            continue
        if _ratio(table.column(name)) < 1.0 + 1e-6:
            raise TooFewRunsError(
                f"all runs have the same {name}, so {law.name} cannot tell what {name} does. Add "
                f"runs with two or more other values of {name}."
            )
    if isinstance(law, DataConstrainedLaw) and "R_D_star" not in constraints.fixed:
        with np.errstate(invalid="ignore"):
            repeats = table.column("unique_tokens").astype(float) < table.D
        if not repeats.any():
            raise TooFewRunsError(
                f"no run repeats its data, so {law.name} cannot tell what repeats are worth. Give "
                "a column unique_tokens, add runs of several epochs, hold R_D_star and R_N_star "
                "with fixed=, or fit ChinchillaLaw."
            )
    if len(law.inputs) == 1:
        (only,) = law.inputs
        distinct = len(np.unique(np.round(np.log(table.column(only).astype(float)), 3)))
        if distinct < n_free:
            raise TooFewRunsError(
                f"{law.name} of {only} has {n_free} free parameters, but the runs have only "
                f"{distinct} distinct values of {only}. Add runs at other values."
            )
    if law.answers_allocation and not {"E", "alpha", "beta"} <= set(constraints.fixed):
        _require_budgets(table)


def _require_budgets(table: RunTable) -> None:
    """Raise if all runs are of one budget: by 6·N·D, by the plan, or by the C they counted."""
    told = {
        "6·N·D": table.N * table.D,
        "budget": table.column("budget").astype(float),
        "C": np.asarray(table.C, dtype=float),
    }
    for name, values in told.items():
        spread = _ratio(values)
        if spread < ONE_BUDGET:
            raise TooFewRunsError(
                f"all runs are of one compute budget ({name} within a factor of {spread:.3g}), "
                "which cannot tell how loss falls with compute. Add runs at two or more other "
                "budgets, each 3 to 10 times apart."
            )


def _ratio(values: Floats) -> float:
    """Return the largest over the smallest, infinite where some are unknown or not positive."""
    low, high = float(values.min()), float(values.max())
    return high / low if 0.0 < low <= high < np.inf else np.inf


def usable(table: RunTable) -> tuple[RunTable, list[FitWarning]]:
    """Return the table without runs that have no loss, N or D, and say so.

    Such runs stay in the table as excluded, with the reason.

    Raises
    ------
    TooFewRunsError
        If that leaves none.
    """
    if not len(table):
        raise TooFewRunsError(_no_run(table))
    read = np.stack([table.N, table.D, table.L])
    whole = np.asarray((np.isfinite(read) & (read > 0)).all(axis=0))
    if whole.all():
        return table, []
    loss = np.asarray(table.L, dtype=float)
    negative = np.isfinite(loss) & (loss <= 0)
    if not whole.any():
        raise TooFewRunsError(_none_usable(loss, negative))
    gone = [str(i) for i, ok in zip(table.run_ids, whole, strict=True) if not ok]
    note = FitWarning(
        code="left_out",
        message=f"{_count(gone)} without a positive, finite N, D and loss cannot be fitted and "
        f"did not count: {_named(gone)}.",
        remedy="A power law describes losses above zero: train with a loss that is positive."
        if negative.any()
        else "Finish them, or give their losses.",
        run_ids=tuple(gone),
    )
    return table.exclude(gone, reason="no positive, finite N, D and loss"), [note]


def _no_run(table: RunTable) -> str:
    reasons = sorted(set(table.exclusions.values()))
    if reasons:
        return (
            f"all {counted(len(table.exclusions), 'run')} are excluded "
            f"({'; '.join(reasons[:_MOST_NAMED])}). runs.restore() takes them back."
        )
    return "there is no finished run to fit. Finish some, or look at sweep.failures for why not."


def _none_usable(loss: Floats, negative: NDArray[np.bool_]) -> str:
    runs = counted(len(loss), "run")
    verb = "has" if len(loss) == 1 else "have"
    if negative.all():
        low, high = loss.min(), loss.max()
        values = (
            f"a loss of {low:.3g}, which is"
            if low == high
            else f"losses from {low:.3g} to {high:.3g}, which are"
        )
        return (
            f"{runs} {verb} {values} not positive, and a power law describes losses that fall "
            "towards a floor above zero. Train with a loss that is positive, such as a "
            "cross-entropy or a squared error."
        )
    return f"{runs} {verb} no positive, finite N, D and loss. Finish them, or give their numbers."


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
        message=f"{_count(ids)} {'equals' if len(ids) == 1 else 'equal'} another in N, D, C and "
        f"loss to the last digit ({_named(ids)}), and each counts as one more: intervals are too "
        "narrow if they are copies.",
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
    named: list[str] = []
    if "convention" in table.columns:
        named = sorted({str(c) for c in table.column("convention")} - {"", "nan", "None"})
    if (len(used) > 1 and not pure) or len(named) > 1:
        yield FitWarning(
            code="mixed_conventions",
            message=f"The runs count N by different conventions ({', '.join(named or used)}).",
            remedy="Bring them to one: runs.with_convention('total')."
            if len(used) > 1 and not pure
            else f"Fit each by itself: runs.where(convention=['{named[0]}']).",
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
            message=f"{_count(stopped)} stopped before the end of the planned budget: "
            f"{_named(stopped)}.",
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
            message=f"{_count(ids)} saw their data more than once (up to "
            f"{epochs[repeated].max():.3g} epochs): repeated {table.unit} are worth less than new "
            "ones.",
            remedy="Fit DataConstrainedLaw, or only runs of one epoch.",
            run_ids=tuple(ids),
        )


def _count(ids: Sized) -> str:
    return counted(len(ids), "run")


def _named(ids: list[str]) -> str:
    shown = ", ".join(map(str, ids[:_MOST_NAMED]))
    return shown if len(ids) <= _MOST_NAMED else f"{shown} and {len(ids) - _MOST_NAMED} more"
