"""IsoFLOP curves: loss against N at each budget, the parabola, and its minimum if there is one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ..fit import IsoFlopFit, IsoFlopMinimum
from ..records import loss_unit
from .style import axis, colour, count, drawn_rows, figure, flop, keep_readable, marker

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IsoFlopCurve:
    """One budget's runs, its parabola over the window, and its minimum.

    Attributes
    ----------
    minimum : IsoFlopMinimum
    run_ids : tuple of str
    n_params, loss : ndarray, shape (n_runs,)
    line_n_params, line_loss : ndarray, shape (n_points,)
        Empty where no parabola was fitted.
    """

    minimum: IsoFlopMinimum
    run_ids: tuple[str, ...]
    n_params: Array
    loss: Array
    line_n_params: Array
    line_loss: Array

    @property
    def label(self) -> str:
        """The budget, and whether it has an optimum."""
        lacking = "" if self.minimum.status == "optimum" else ", no minimum"
        return f"{flop(self.minimum.budget)} FLOP{lacking}"


def isoflop_curves(fit: IsoFlopFit, points: int = 80) -> tuple[IsoFlopCurve, ...]:
    """Return what an IsoFLOP figure shows, budgets ascending; of thousands of runs a sample."""
    ids = np.array(fit.runs.run_ids, dtype=object)
    curves = []
    for minimum, members in zip(fit.minima, fit.rows, strict=True):
        rows = members[drawn_rows(len(members))]
        low, high = minimum.window
        line = np.geomspace(low, high, points) if np.isfinite(low) else np.empty(0)
        curves.append(
            IsoFlopCurve(
                minimum=minimum,
                run_ids=tuple(ids[rows]),
                n_params=fit.runs.N[rows],
                loss=fit.runs.L[rows],
                line_n_params=line,
                line_loss=minimum.parabola(line) if len(line) else line,
            )
        )
    return tuple(curves)


def plot_isoflop(fit: IsoFlopFit) -> go.Figure:
    """Draw loss against N, one colour and marker a budget; stars are minima with intervals."""
    drawing = figure(
        "IsoFLOP curves and their minima",
        axis("model size N", "parameters", log=True, values=fit.runs.N),
        axis("held-out loss", loss_unit(fit.unit)),
    )
    for k, curve in enumerate(isoflop_curves(fit)):
        optimum = curve.minimum.status == "optimum"
        shape = marker(k) if optimum else f"{marker(k)}-open"
        drawing.add_scatter(
            x=curve.n_params,
            y=curve.loss,
            mode="markers",
            name=curve.label,
            legendgroup=curve.label,
            marker={"color": colour(k), "symbol": shape, "size": 8},
            text=curve.run_ids,
            hovertemplate="%{text}<br>N %{x:.4s}<br>loss %{y:.4f}<extra>%{fullData.name}</extra>",
        )
        drawing.add_scatter(
            x=curve.line_n_params,
            y=curve.line_loss,
            mode="lines",
            line={"color": colour(k), "width": 1.5, "dash": "solid" if optimum else "dot"},
            legendgroup=curve.label,
            showlegend=False,
            hoverinfo="skip",
        )
        if optimum:
            _add_minimum(drawing, curve, k)
    return keep_readable(drawing)


def _add_minimum(drawing: go.Figure, curve: IsoFlopCurve, k: int) -> None:
    m = curve.minimum
    low, high = m.intervals.get("n_params", (np.nan, np.nan))
    ends = np.clip([low, high], curve.n_params.min(), curve.n_params.max())
    words = f"{count(low)} to {count(high)}" if np.isfinite([low, high]).all() else "open-ended"
    drawing.add_scatter(
        x=[m.n_params],
        y=[m.loss],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [ends[1] - m.n_params],
            "arrayminus": [m.n_params - ends[0]],
            "color": colour(k),
            "thickness": 2,
        },
        mode="markers",
        marker={
            "color": colour(k),
            "symbol": "star",
            "size": 15,
            "line": {"width": 1, "color": "white"},
        },
        legendgroup=curve.label,
        showlegend=False,
        hovertemplate=f"minimum: N* {count(m.n_params)} ({words})<br>loss %{{y:.4f}}"
        f"<extra>{curve.label}</extra>",
    )
