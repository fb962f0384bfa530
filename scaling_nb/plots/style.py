"""How every figure looks: Okabe-Ito colours, a marker for each, readable on light and dark."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#9A8F00")
"""Okabe & Ito 2008, told apart by colour-blind readers; the yellow is darkened for white paper."""
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon", "star")
INK = "#767676"
"""Grey of lines on paper that may be light or dark: contrast 4.5 on white and 4.1 on the notebook's
dark background; no grey has much more on both."""
PAPER, TEXT = "#ffffff", "#444444"
"""A figure that stands alone has paper of its own: it cannot know the theme around it, and no one
ink is dark enough on white and light enough on black. The live charts know, and replace both."""
GRID = "rgba(128,128,128,0.22)"

MAX_DRAWN = 5000
"""Points of one trace; a browser that is sent a million hangs, and nobody sees them."""


def colour(index: int, alpha: float = 1.0) -> str:
    """Return the `index`-th colour, cycling, as an rgba string."""
    text = COLOURS[index % len(COLOURS)]
    red, green, blue = (int(text[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def marker(index: int) -> str:
    """Return the `index`-th marker shape, cycling out of step with the colours."""
    return MARKERS[index % len(MARKERS)]


def axis(
    title: str, unit: str = "", *, log: bool = False, values: ArrayLike | None = None
) -> dict[str, Any]:
    """Return the layout of one axis.

    Parameters
    ----------
    title, unit : str
    log : bool
    values : array_like or None
        What will be drawn: a logarithmic axis of counts then ticks as ``10 M``, ``20 M``,
        ``50 M``, as closely as that range wants. FLOP tick as powers of ten.
    """
    ticks: dict[str, Any] = {}
    if log and values is not None:
        at = log_ticks(values)
        ticks = {"tickvals": at, "ticktext": [count(float(value)) for value in at]}
    return {
        "title": {"text": f"{title} ({unit})" if unit else title},
        "type": "log" if log else "linear",
        "exponentformat": "power",
        "gridcolor": GRID,
        "zerolinecolor": GRID,
        "linecolor": INK,
        "tickcolor": INK,
        "ticks": "outside",
        "automargin": True,
        **ticks,
    }


def log_ticks(values: ArrayLike) -> NDArray[np.float64]:
    """Return tick positions for a logarithmic axis: decades, 1-2-5, or closer, by the range."""
    array = np.asarray(values, float).ravel()
    array = array[np.isfinite(array) & (array > 0)]
    if not len(array):
        return np.array([1.0])
    low, high = np.log10(array.min()), np.log10(array.max())
    steps: tuple[float, ...] = (1.0,)
    if 0.0 < high - low <= 1.0:  # around a single value two decades are drawn
        steps = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    elif high - low <= 3.0:
        steps = (1.0, 2.0, 5.0)
    decades = np.arange(np.floor(low) - 1, np.ceil(high) + 2)
    return np.sort(np.outer(10.0**decades, steps).ravel())


def figure(title: str, x: dict[str, Any], y: dict[str, Any]) -> go.Figure:
    """Return an empty figure in this package's style; `x` and `y` come from :func:`axis`."""
    return go.Figure(
        layout={
            "title": {"text": title, "font": {"size": 15}, "x": 0, "xref": "paper"},
            "xaxis": x,
            "yaxis": y,
            "font": {"color": TEXT, "size": 12},
            "paper_bgcolor": PAPER,
            "plot_bgcolor": PAPER,
            "colorway": list(COLOURS),
            "legend": {"bgcolor": "rgba(0,0,0,0)", "font": {"size": 11}},
            "margin": {"l": 70, "r": 20, "t": 45, "b": 55},
            "height": 420,
            "hoverlabel": {"namelength": -1},
        }
    )


FAR = 10.0
"""Spreads of the middle half beyond which one loss would flatten all others."""


def keep_readable(drawing: go.Figure) -> go.Figure:
    """Fit the y axis to the losses that are not far out, and say how many lie beyond.

    Far out is what lies more than :data:`FAR` times the spread of the middle half of the markers
    beyond that half. Where nothing does, the axis is left to itself.
    """
    drawing.layout.annotations = [a for a in drawing.layout.annotations if a.name != "beyond"]
    traces = [np.asarray(t.y, float) for t in drawing.data if t.y is not None and len(t.y)]
    marked = [
        np.asarray(t.y, float) for t in drawing.data if t.y is not None and t.text is not None
    ]
    losses = np.concatenate([*marked, np.empty(0)])
    losses = losses[np.isfinite(losses)]
    if len(losses) < 4:
        return drawing
    low = np.quantile(losses, 0.25, method="higher")
    high = np.quantile(losses, 0.75, method="lower")
    reach = FAR * (high - low)
    beyond = losses[(losses > high + reach) | (losses < low - reach)]
    if not len(beyond) or reach <= 0:
        return drawing
    drawn = np.concatenate(traces)
    inside = drawn[(drawn >= low - reach) & (drawn <= high + reach)]
    pad = 0.06 * (inside.max() - inside.min())
    worst = float(beyond[np.argmax(np.abs(beyond - high))])
    above = worst > high
    few = f"1 run, loss {measure(worst)}" if len(beyond) == 1 else f"{len(beyond)} runs"
    drawing.update_yaxes(range=[inside.min() - pad, inside.max() + pad])
    return drawing.add_annotation(
        name="beyond", text=f"{'▲' if above else '▼'} beyond the chart: {few}",
        xref="paper", yref="paper", x=1, xanchor="right", y=int(above),
        yanchor="top" if above else "bottom", showarrow=False, font={"size": 11},
    )  # fmt: skip


def drawn_rows(n_rows: int, always: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
    """Return which of `n_rows` points are drawn: at most :data:`MAX_DRAWN`, and `always` those."""
    if n_rows <= MAX_DRAWN:
        return np.arange(n_rows)
    rows = np.linspace(0, n_rows - 1, MAX_DRAWN).astype(np.intp)
    return rows if always is None else np.union1d(rows, np.flatnonzero(always)[:MAX_DRAWN])


def flop(value: float) -> str:
    """Return a number of FLOP as it is typed: ``1e12``, ``3.2e18``."""
    text = f"{value:.3g}" if value < 1e5 else f"{value:.2e}"
    digits, _, exponent = text.partition("e")
    if not exponent:
        return text
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return f"{digits}e{int(exponent)}"


def count(value: float) -> str:
    """Return a count in words of the field: ``1.2 M``, ``70 B``, ``3.4e17`` beyond trillions."""
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if scale <= abs(value) < 1e15:
            return f"{value / scale:.3g} {letter}"
    return flop(value)


def measure(value: float) -> str:
    """Return a loss or a ratio: three decimals, or three digits where those would show nothing."""
    if not 0.1 <= abs(value) < 1e6:
        return f"{value:.3g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 10 else f"{value:.3f}"
