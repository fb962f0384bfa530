"""The fitted surface L(N, D): iso-loss contours, the runs on it, and the frontier through it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ..errors import FitError
from ..fit import LawFit
from .style import COLOURS, GRID, INK, axis, colour, drawn_rows, figure

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SurfaceView:
    """The surface on a grid, and what is drawn over it.

    Attributes
    ----------
    n_params : ndarray, shape (n_n,), parameters
    n_tokens : ndarray, shape (n_d,), tokens
    loss : ndarray, shape (n_d, n_n), nats per token
    run_n, run_d, run_loss : ndarray, shape (n_runs,)
        Of thousands of runs a sample.
    best_n, best_d : ndarray, shape (n_best,)
        Compute-optimal pairs within the grid.
    """

    n_params: Array
    n_tokens: Array
    loss: Array
    run_n: Array
    run_d: Array
    run_loss: Array
    best_n: Array
    best_d: Array


def surface_view(fit: LawFit, points: int = 60, margin: float = 2.0) -> SurfaceView:
    """Return the surface over the runs' range of N and D, widened by the factor `margin`.

    Raises
    ------
    FitError
        If the law does not speak of both N and D.
    """
    if not fit.law.answers_allocation:
        raise FitError(
            f"{fit.law.name} is no surface over N and D: it reads {', '.join(fit.law.inputs)}. "
            "Fit ChinchillaLaw to see one."
        )
    empty = np.empty(0)
    run_n, run_d, run_loss = (
        (fit.runs.N, fit.runs.D, fit.runs.L) if fit.runs is not None else (empty, empty, empty)
    )
    ends_n = (run_n.min(), run_n.max()) if len(run_n) else (1e7, 1e11)
    ends_d = (run_d.min(), run_d.max()) if len(run_d) else (1e9, 1e13)
    n = np.geomspace(ends_n[0] / margin, ends_n[1] * margin, points)
    d = np.geomspace(ends_d[0] / margin, ends_d[1] * margin, points)
    best_n, best_d = fit.optimal(np.geomspace(6 * n[0] * d[0], 6 * n[-1] * d[-1], 200))
    rows = drawn_rows(len(run_n))
    inside = (best_n >= n[0]) & (best_n <= n[-1]) & (best_d >= d[0]) & (best_d <= d[-1])
    return SurfaceView(
        n_params=n,
        n_tokens=d,
        loss=np.asarray(fit.predict(n[None, :], d[:, None]), float),
        run_n=run_n[rows],
        run_d=run_d[rows],
        run_loss=run_loss[rows],
        best_n=best_n[inside],
        best_d=best_d[inside],
    )


def plot_surface(fit: LawFit) -> go.Figure:
    """Draw iso-loss contours over N and D, the runs, and the compute-optimal frontier."""
    view, unit = surface_view(fit), fit.unit
    drawing = figure(
        f"Loss surface of the {fit.law.name}",
        axis("model size N", "parameters", log=True, values=view.n_params),
        axis(f"training {unit} D", unit, log=True, values=view.n_tokens),
    )
    drawing.add_contour(
        x=view.n_params,
        y=view.n_tokens,
        z=view.loss,
        ncontours=18,
        contours={"coloring": "lines", "showlabels": True, "labelfont": {"size": 10, "color": INK}},
        colorscale=[[0, COLOURS[4]], [1, COLOURS[1]]],
        line={"width": 1.3},
        showscale=False,
        hovertemplate="N %{x:.3s}<br>D %{y:.3s}<br>loss %{z:.4f}<extra></extra>",
    )
    drawing.add_scatter(
        x=view.run_n,
        y=view.run_d,
        mode="markers",
        name="runs",
        marker={
            "color": colour(0),
            "symbol": "circle",
            "size": 6,
            "line": {"width": 1, "color": GRID},
        },
        customdata=view.run_loss,
        hovertemplate="N %{x:.4s}<br>D %{y:.4s}<br>loss %{customdata:.4f}<extra>run</extra>",
    )
    drawing.add_scatter(
        x=view.best_n,
        y=view.best_d,
        mode="lines",
        name="compute-optimal",
        line={"color": colour(3), "width": 3},
    )
    return drawing.update_layout(
        xaxis_range=np.log10(view.n_params[[0, -1]]), yaxis_range=np.log10(view.n_tokens[[0, -1]])
    )
