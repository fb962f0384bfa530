"""Which tables are refused before anything is fitted, and which runs count for nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError, TooFewRunsError, counted
from ..laws import Constraints, DataConstrainedLaw, Law
from ..records import RunTable
from .notes import MOST_NAMED, FitWarning, named

Floats = NDArray[np.float64]

ONE_BUDGET = 1.5
"""Runs whose compute lies within this factor are one budget."""
_LEAST_LOSS = 1e-9
_MOST_LOSS = 1e12


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
        message=f"{counted(len(gone), 'run')} without a positive, finite N, D and loss cannot be "
        f"fitted and did not count: {named(gone)}.",
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
            f"({'; '.join(reasons[:MOST_NAMED])}). runs.restore() takes them back."
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
