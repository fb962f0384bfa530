"""N*(C) and D*(C) with their band, the minima they pass through, and the answer asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ..fit import Allocation, IsoFlopFit
from ..records import loss_unit
from .style import INK, axis, colour, count, figure

Array = NDArray[np.float64]
Quantity = Literal["n_params", "n_tokens", "loss", "tokens_per_param"]

_TITLES = {
    "n_params": "How big: N*(C)",
    "n_tokens": "How much data: D*(C)",
    "loss": "What loss: L*(C)",
    "tokens_per_param": "How much data for each parameter: D*/N*",
}


def _axis_words(quantity: Quantity, unit: str) -> tuple[str, str]:
    """Return an axis' title and unit, where D counts `unit`."""
    return {
        "n_params": ("compute-optimal model size N*", "parameters"),
        "n_tokens": (f"compute-optimal {unit} D*", unit),
        "loss": ("compute-optimal loss L*", loss_unit(unit)),
        "tokens_per_param": (f"{unit} per parameter D*/N*", ""),
    }[quantity]


class Allocates(Protocol):
    """Any fit that divides a budget."""

    def allocate(self, compute: float) -> Allocation:
        """Return N, D and loss for `compute` FLOP."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frontier:
    """One quantity along the compute-optimal frontier.

    Attributes
    ----------
    compute : ndarray, shape (n_points,), FLOP
    value, low, high : ndarray, shape (n_points,)
        ``low`` and ``high`` NaN without intervals.
    seen : (float, float), FLOP
        The runs' smallest and largest C; NaN where there are none.
    target : Allocation or None
        The answer at the compute that was asked for.
    unit : str
        What D counts.
    """

    quantity: Quantity
    compute: Array
    value: Array
    low: Array
    high: Array
    seen: tuple[float, float]
    target: Allocation | None
    unit: str


def frontier(
    fit: Allocates,
    *,
    quantity: Quantity = "n_params",
    target: float | None = None,
    span: tuple[float, float] | None = None,
    points: int = 33,
) -> Frontier:
    """Return `quantity` along C, from the runs' smallest C to the target or ten times the largest.

    Parameters
    ----------
    fit : LawFit, IsoFlopFit or a published law
    quantity : {"n_params", "n_tokens", "loss", "tokens_per_param"}
    target : float or None, FLOP
    span : (low, high) or None, FLOP
        Instead of the default range.
    points : int
    """
    scope = getattr(fit, "scope", None)
    seen = scope.C if scope else (np.nan, np.nan)
    low, high = span or (seen if scope else (1e18, 1e24))
    high = max(high if span or not scope else 10.0 * high, target or 0.0)
    low = min(low, target or low)
    compute = np.geomspace(low, high, points)
    answers = [fit.allocate(float(c)) for c in compute]
    missing = (np.nan, np.nan)
    bounds = np.array([a.intervals.get(quantity, missing) for a in answers])
    return Frontier(
        quantity=quantity,
        # What an answer spends: with tokens to serve, more than the budget whose loss it reaches.
        compute=np.array([a.compute for a in answers]),
        value=np.array([getattr(a, quantity) for a in answers]),
        low=bounds[:, 0],
        high=bounds[:, 1],
        seen=seen,
        target=fit.allocate(target) if target else None,
        unit=answers[0].unit,
    )


def plot_frontier(
    fits: Allocates | Mapping[str, Allocates],
    *,
    quantity: Quantity = "n_params",
    target: float | None = None,
    span: tuple[float, float] | None = None,
    points: int = 33,
) -> go.Figure:
    """Draw a quantity along C with its band; several fits by name on one figure.

    Minima of an Approach 2 fit are drawn with their intervals; the grey band is where there
    are runs, so that everything right of it is extrapolation.
    """
    named = fits if isinstance(fits, Mapping) else {"": fits}
    lines = {
        name: frontier(fit, quantity=quantity, target=target, span=span, points=points)
        for name, fit in named.items()
    }
    shown = np.concatenate([x for f in lines.values() for x in (f.value, f.low, f.high)])
    unit = next(iter(lines.values())).unit
    drawing = figure(
        _TITLES[quantity],
        axis("training compute C", "FLOP", log=True),
        axis(*_axis_words(quantity, unit), log=quantity != "loss", values=shown),
    )
    for k, (name, fit) in enumerate(named.items()):
        line = lines[name]
        _add_line(drawing, line, name or "fit", k, labelled=len(named) == 1)
        if isinstance(fit, IsoFlopFit) and quantity != "tokens_per_param":
            _add_minima(drawing, fit, quantity, k)
        if k == 0 and np.isfinite(line.seen[0]):
            _add_seen(drawing, line)
    drawing.update_layout(showlegend=len(named) > 1)
    return drawing


def _add_line(drawing: go.Figure, line: Frontier, name: str, k: int, *, labelled: bool) -> None:
    if np.isfinite(line.low).any():
        drawing.add_scatter(
            x=np.concatenate([line.compute, line.compute[::-1]]),
            y=np.concatenate([line.high, line.low[::-1]]),
            fill="toself",
            fillcolor=colour(k, 0.2),
            line={"width": 0},
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
        )
    spread = np.stack([line.low, line.high], axis=1)
    drawing.add_scatter(
        x=line.compute,
        y=line.value,
        mode="lines",
        name=name,
        legendgroup=name,
        line={"color": colour(k), "width": 2, "dash": ("solid", "dash", "dot", "dashdot")[k % 4]},
        customdata=spread,
        hovertemplate="C %{x:.3g}<br>%{y:.4s} (%{customdata[0]:.4s} to %{customdata[1]:.4s})",
    )
    if line.target is None:
        return
    answer = line.target
    value = getattr(answer, line.quantity)
    low, high = answer.intervals.get(line.quantity, (value, value))
    drawing.add_scatter(
        x=[answer.compute],
        y=[value],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [high - value],
            "arrayminus": [value - low],
            "color": colour(k),
        },
        mode="markers+text" if labelled else "markers",
        text=[f"{value:.3f}  " if line.quantity == "loss" else f"{count(value)}  "],
        textposition="bottom left",
        marker={"color": colour(k), "symbol": "star", "size": 15},
        legendgroup=name,
        showlegend=False,
        hovertemplate=f"C {answer.compute:.3g}<br>{value:.4g} ({low:.4g} to {high:.4g})"
        f"<extra>{name}</extra>",
    )


def _add_minima(drawing: go.Figure, fit: IsoFlopFit, quantity: Quantity, k: int) -> None:
    optima = fit.optima
    value = np.array([getattr(m, quantity) for m in optima])
    bounds = np.array([m.intervals.get(quantity, (np.nan, np.nan)) for m in optima])
    # Half a bar would look like an end that is known.
    known = np.isfinite(bounds).all(axis=1, keepdims=True) & (bounds[:, :1] > 0)
    bounds = np.where(known, bounds, value[:, None])
    drawing.add_scatter(
        x=[m.compute for m in optima],
        y=value,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": bounds[:, 1] - value,
            "arrayminus": value - bounds[:, 0],
            "color": colour(k),
        },
        mode="markers",
        marker={"color": colour(k), "symbol": "circle", "size": 8},
        showlegend=False,
        hovertemplate="minimum at C %{x:.3g}: %{y:.4s}<extra></extra>",
    )


def _add_seen(drawing: go.Figure, line: Frontier) -> None:
    drawing.add_vrect(x0=line.seen[0], x1=line.seen[1], fillcolor=INK, opacity=0.18, line_width=0)
    drawing.add_annotation(
        x=np.log10(line.seen[1]),
        y=1,
        yref="paper",
        text="runs ◂ ",
        showarrow=False,
        xanchor="right",
        yanchor="top",
        font={"size": 11},
    )
