"""Fits and allocations as tables: DataFrame, markdown, LaTeX."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..errors import FitError
from ..laws import Law
from ..records import TOKENS
from .allocation import Allocation, Interval, Scope

_HEADS = {
    "C": ("C (FLOP)", "$C$ (FLOP)"),
    "n_params": ("N (parameters)", "$N^*$"),
    "n_tokens": ("D ({unit})", "$D^*$"),
    "loss": ("loss", "loss"),
    "tokens_per_param": ("{unit}/parameter", "$D^*/N^*$"),
}


def allocation_frame(answers: Sequence[Allocation]) -> pd.DataFrame:
    """Return one row a budget; ``*_low`` and ``*_high`` are the ends of the intervals.

    ``extrapolation`` is the budget over the largest run's, ``backtest_error`` the typical relative
    error of the largest budget's losses where the smaller predict them.
    """
    rows: list[dict[str, float]] = []
    for item in answers:
        row = {"C": item.compute}
        for name in list(_HEADS)[1:]:
            row[name] = getattr(item, name)
            if name in item.intervals:
                row[f"{name}_low"], row[f"{name}_high"] = item.intervals[name]
        row["near_optimal_low"], row["near_optimal_high"] = item.near_optimal
        row["extrapolation"] = item.extrapolation
        if item.held_out is not None:
            row["backtest_error"] = item.held_out.rmse
        rows.append(row)
    return pd.DataFrame(rows)


def decades(scope: Scope | None) -> list[float]:
    """Return the decades of compute from the smallest run's to a hundred times the largest run's.

    From 1e18 to 1e26 FLOP where there are no runs.
    """
    low, high = np.log10(scope.C if scope else (1e18, 1e24))
    return [float(f"1e{k}") for k in range(math.ceil(low), math.floor(high) + 3)]


def chinchilla_table(answers: Sequence[Allocation], *, format: str = "frame") -> Any:
    """Return the answers as a DataFrame, or as markdown or LaTeX text.

    The text too has how far each budget extrapolates, and the error of the back-test.
    """
    if format == "frame":
        return allocation_frame(answers)
    if format not in ("markdown", "latex"):
        raise FitError(f"format {format!r} is unknown. Use 'frame', 'markdown' or 'latex'.")
    latex = format == "latex"
    cells = [[_cell(item.compute, None, latex), *_answers(item, latex)] for item in answers]
    unit = answers[0].unit if answers else TOKENS
    heads = [pair[latex].format(unit=unit) for pair in _HEADS.values()]
    for head, values in _perspective(answers).items():
        heads.append(head)
        for line, value in zip(cells, values, strict=True):
            line.append(value.replace("%", r"\%") if latex else value)
    if not latex:
        lines = [heads, ["---:"] * len(heads), *cells]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    body = " \\\\\n".join(" & ".join(line) for line in cells)
    return (
        f"\\begin{{tabular}}{{{'r' * len(heads)}}}\n\\hline\n{' & '.join(heads)} \\\\\n\\hline\n"
        f"{body} \\\\\n\\hline\n\\end{{tabular}}"
    )


def _perspective(answers: Sequence[Allocation]) -> dict[str, list[str]]:
    """Return the columns that say what the answers are worth, where there are any."""
    columns = {}
    if any(np.isfinite(item.extrapolation) for item in answers):
        columns["C / largest run"] = [f"{item.extrapolation:.2g}" for item in answers]
    if any(item.held_out is not None for item in answers):
        columns["back-test error"] = [
            "" if item.held_out is None else f"{100 * item.held_out.rmse:.2g} %" for item in answers
        ]
    return columns


def _answers(item: Allocation, latex: bool) -> list[str]:
    return [
        _cell(getattr(item, name), item.intervals.get(name), latex) for name in list(_HEADS)[1:]
    ]


def _cell(value: float, interval: Interval | None, latex: bool) -> str:
    text = _number(value, latex)
    if interval is None:
        return text
    dash = "--" if latex else "–"
    return f"{text} ({_number(interval[0], latex)}{dash}{_number(interval[1], latex)})"


def _number(value: float, latex: bool) -> str:
    if np.isnan(value):
        return "--" if latex else "–"
    text = f"{value:.3g}"
    if latex and "e" in text:
        mantissa, exponent = text.split("e")
        return f"${mantissa} \\times 10^{{{int(exponent)}}}$"
    return text


def parameter_frame(
    law: Law,
    params: Mapping[str, float],
    intervals: Mapping[str, Interval],
    *,
    fixed: Collection[str] = (),
    exponent: tuple[float, Interval | None] | None = None,
) -> pd.DataFrame:
    """Return one row a parameter: value, interval, meaning; last the exponent a of N* ∝ C^a."""
    rows: list[dict[str, Any]] = []
    for parameter in law.parameters:
        low, high = intervals.get(parameter.name, (None, None))
        rows.append(
            {
                "parameter": parameter.name,
                "value": params[parameter.name],
                "low": low,
                "high": high,
                "meaning": parameter.meaning + (" (held)" if parameter.name in fixed else ""),
            }
        )
    if exponent is not None:
        value, interval = exponent
        low, high = interval or (None, None)
        rows.append(
            {
                "parameter": "a",
                "value": value,
                "low": low,
                "high": high,
                "meaning": "N* grows as C^a, a = beta / (alpha + beta)",
            }
        )
    frame = pd.DataFrame(rows)
    return frame if intervals else frame.drop(columns=["low", "high"])
