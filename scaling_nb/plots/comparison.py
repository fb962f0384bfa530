"""Methods side by side: each one's N* (or exponent) with its interval, one row a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from ..fit import Comparison
from ..records import TOKENS, loss_unit
from .style import GRID, axis, colour, figure, flop, marker

Shown = Literal["n_params", "n_tokens", "loss", "exponent_N"]

_TITLES: dict[Shown, str] = {
    "n_params": "N*",
    "n_tokens": "D*",
    "loss": "loss",
    "exponent_N": "exponent a of N* ∝ C^a",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One method's value and interval; the interval NaN where there is none."""

    label: str
    convention: str
    value: float
    low: float
    high: float


def comparison_bars(comparison: Comparison, quantity: Shown = "n_params") -> tuple[Bar, ...]:
    """Return what the figure shows; methods that failed are left out."""
    bars = []
    for entry in comparison.entries:
        if entry.answer is None:
            continue
        missing = (np.nan, np.nan)
        if quantity == "exponent_N":
            value, (low, high) = entry.exponent_N, entry.exponent_N_interval
        else:
            value = getattr(entry.answer, quantity)
            low, high = entry.answer.intervals.get(quantity, missing)
        if np.isfinite(value):
            bars.append(
                Bar(
                    label=entry.method,
                    convention=entry.convention,
                    value=float(value),
                    low=float(low),
                    high=float(high),
                )
            )
    return tuple(bars)


def plot_comparison(comparison: Comparison, quantity: Shown = "n_params") -> go.Figure:
    """Draw each method's value with its interval; colour and marker say how N is counted."""
    bars = comparison_bars(comparison, quantity)
    at = "" if quantity == "exponent_N" else f" at C = {flop(comparison.compute)} FLOP"
    of = next((entry.answer.unit for entry in comparison.entries if entry.answer), TOKENS)
    unit = {"n_params": "parameters", "n_tokens": of, "loss": loss_unit(of)}
    drawing = figure(
        f"{_TITLES[quantity]}{at}, by method",
        axis(
            _TITLES[quantity],
            unit.get(quantity, ""),
            log=quantity in ("n_params", "n_tokens"),
            values=[x for bar in bars for x in (bar.low, bar.value, bar.high)]
            if quantity in ("n_params", "n_tokens")
            else None,
        ),
        {
            "automargin": True,
            "autorange": "reversed",
            "gridcolor": GRID,
            "ticklabelstandoff": 8,
        },
    )
    for k, convention in enumerate(dict.fromkeys(bar.convention for bar in bars)):
        group = [bar for bar in bars if bar.convention == convention]
        spread = np.array([[bar.low, bar.value, bar.high] for bar in group])
        spread = np.where(np.isfinite(spread), spread, spread[:, 1:2])
        drawing.add_scatter(
            x=spread[:, 1],
            y=[bar.label for bar in group],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": spread[:, 2] - spread[:, 1],
                "arrayminus": spread[:, 1] - spread[:, 0],
                "color": colour(k),
            },
            mode="markers",
            name=f"N: {convention}",
            marker={"color": colour(k), "symbol": marker(k), "size": 10},
            customdata=spread,
            hovertemplate="%{y}<br>%{x:.4s} (%{customdata[0]:.4s} to %{customdata[2]:.4s})",
        )
    n_rows = len({bar.label for bar in bars})
    return drawing.update_layout(height=160 + 36 * n_rows)
