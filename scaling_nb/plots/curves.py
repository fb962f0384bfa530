"""Training curves: loss against tokens (or FLOP), coloured by model size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ..curves import Curve
from ..fit import EnvelopeFit
from ..records import TOKENS, loss_unit
from .style import INK, axis, colour, count, figure

Array = NDArray[np.float64]
MAX_POINTS = 60
"""Points drawn of each curve; a longer one is averaged over as many bins, even in ln x, since
single batches scatter far more than models differ."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CurveLine:
    """One curve as it is drawn: averaged to few points, its size's rank deciding the colour."""

    run_id: str
    label: str
    size_rank: int
    x: Array
    loss: Array


def curve_lines(
    curves: Sequence[Curve], *, x: Literal["tokens", "flops"] = "tokens"
) -> tuple[CurveLine, ...]:
    """Return what the figure shows, sizes ascending; NaN losses are left out."""
    sizes = sorted({curve.N for curve in curves})
    lines = []
    for curve in sorted(curves, key=lambda c: (c.N, c.run_id)):
        known = np.isfinite(curve.loss)
        at, loss = _averaged(getattr(curve, x)[known], curve.loss[known])
        lines.append(
            CurveLine(
                run_id=curve.run_id,
                label=f"N {count(curve.N)}",
                size_rank=sizes.index(curve.N),
                x=at,
                loss=loss,
            )
        )
    return tuple(lines)


def _averaged(x: Array, loss: Array) -> tuple[Array, Array]:
    """Return the means of x and loss over bins even in ln x; short curves as they are."""
    if len(x) <= MAX_POINTS:
        return x, loss
    edges = np.geomspace(max(x[0], x[-1] * 1e-6), x[-1], MAX_POINTS)
    _, place = np.unique(np.searchsorted(edges, x), return_inverse=True)
    count_in = np.bincount(place)
    return np.bincount(place, x) / count_in, np.bincount(place, loss) / count_in


def plot_curves(
    curves: Sequence[Curve],
    *,
    x: Literal["tokens", "flops"] = "tokens",
    envelope: EnvelopeFit | None = None,
) -> go.Figure:
    """Draw loss against tokens or FLOP by run, one colour a size; the envelope on top, if given."""
    tokens = x == "tokens"
    unit = curves[0].unit if curves else TOKENS
    seen = np.concatenate([curve.tokens for curve in curves]) if curves else np.empty(0)
    drawing = figure(
        "Loss while training",
        axis(f"{unit} seen", unit, log=True, values=seen)
        if tokens
        else axis("training compute C", "FLOP", log=True),
        axis("loss", loss_unit(unit)),
    )
    shown: set[str] = set()
    dashes = ("solid", "dash", "dot", "dashdot")
    for line in curve_lines(curves, x=x):
        drawing.add_scatter(
            x=line.x,
            y=line.loss,
            mode="lines",
            name=line.label,
            legendgroup=line.label,
            showlegend=line.label not in shown,
            line={
                "color": colour(line.size_rank, 0.85),
                "width": 1.3,
                "dash": dashes[line.size_rank // 7 % 4],
            },
            hovertemplate=f"{line.run_id}<br>%{{x:.3s}}: %{{y:.4f}}<extra>{line.label}</extra>",
        )
        shown.add(line.label)
    if envelope is not None:
        drawing.add_scatter(
            x=envelope.tokens if tokens else envelope.compute,
            y=envelope.loss,
            mode="lines",
            name="lower envelope",
            line={"color": INK, "width": 3},
        )
    return drawing
