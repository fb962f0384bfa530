"""The figures of the game: first what they show, then the drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ..fit import LawFit
from ..plots.style import COLOURS, INK, axis, colour, figure, flop, marker
from ..records import RunTable
from .submission import Submission

Array = NDArray[np.float64]
_MARGIN = 3.0
_POINTS = 60
_MANY = 8
"""Choices that are told apart by colour and shape; more are one muted cloud, named on hover."""
_SHAPES = ("diamond", "square", "triangle-up", "cross", "x", "pentagon")
_HUES = (3, 1, 5, 4, 6)


class Judged(Protocol):
    """What the figures ask of a verdict."""

    @property
    def submission(self) -> Submission: ...
    @property
    def truth(self) -> LawFit: ...
    @property
    def target(self) -> float: ...
    @property
    def best_n_params(self) -> float: ...
    @property
    def best_n_tokens(self) -> float: ...
    @property
    def best_loss(self) -> float: ...
    @property
    def loss(self) -> float: ...
    @property
    def score(self) -> float: ...
    @property
    def runs(self) -> RunTable | None: ...
    @property
    def measured(self) -> RunTable | None: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TruthView:
    """The true surface on a grid, and what is drawn over it.

    Attributes
    ----------
    n_params, n_tokens : ndarray, shape (n,)
    loss : ndarray, shape (n_tokens, n_params), nats per token
    budget_n, budget_d : ndarray, shape (n,)
        What the target pays for.
    best : tuple of float
        N and D of the optimum.
    choices : tuple of (name, N, D, score)
    run_n, run_d, run_loss : ndarray, shape (n_runs,)
    target : float, FLOP
    """

    n_params: Array
    n_tokens: Array
    loss: Array
    budget_n: Array
    budget_d: Array
    best: tuple[float, float]
    choices: tuple[tuple[str, float, float, float], ...]
    run_n: Array
    run_d: Array
    run_loss: Array
    target: float


def truth_view(verdicts: Sequence[Judged]) -> TruthView:
    """Return the surface that holds every choice, the optimum and the students' runs."""
    first = verdicts[0]
    flops, target = first.truth.flops, first.target
    tables = [v.runs for v in verdicts if v.runs is not None]
    run_n, run_d, run_loss = (
        np.concatenate([getattr(t, name) for t in tables] or [np.empty(0)]) for name in "NDL"
    )
    choices = tuple(
        (
            v.submission.student or "your choice",
            v.submission.n_params,
            float(flops.tokens(target, v.submission.n_params)),
            v.score,
        )
        for v in verdicts
    )
    seen_n = [first.best_n_params, *(c[1] for c in choices), *run_n]
    seen_d = [first.best_n_tokens, *(c[2] for c in choices), *run_d]
    n = np.geomspace(min(seen_n) / _MARGIN, max(seen_n) * _MARGIN, _POINTS)
    d = np.geomspace(min(seen_d) / _MARGIN, max(seen_d) * _MARGIN, _POINTS)
    return TruthView(
        n_params=n,
        n_tokens=d,
        loss=np.asarray(first.truth.predict(n[None, :], d[:, None]), float),
        budget_n=n,
        budget_d=np.asarray(flops.tokens(target, n), float),
        best=(first.best_n_params, first.best_n_tokens),
        choices=choices,
        run_n=run_n,
        run_d=run_d,
        run_loss=run_loss,
        target=target,
    )


def draw_truth(view: TruthView) -> go.Figure:
    """Draw iso-loss contours, the line of the target budget, runs, choices and the optimum."""
    drawing = figure(
        f"The true loss, and what was chosen for {flop(view.target)} FLOP",
        axis("model size N", "parameters", log=True, values=view.n_params),
        axis("training tokens D", "tokens", log=True, values=view.n_tokens),
    )
    # Contours evenly spaced in ln loss: evenly in loss they would crowd where models are tiny.
    drawing.add_contour(
        x=view.n_params,
        y=view.n_tokens,
        z=np.log(view.loss),
        ncontours=22,
        contours={"coloring": "lines"},
        colorscale=[[0, COLOURS[4]], [1, COLOURS[1]]],
        line={"width": 1.2},
        showscale=False,
        customdata=view.loss,
        hovertemplate="N %{x:.3s}<br>D %{y:.3s}<br>loss %{customdata:.4f}<extra></extra>",
        name="true loss",
    )
    drawing.add_scatter(
        x=view.budget_n,
        y=view.budget_d,
        mode="lines",
        name="the target budget",
        line={"color": INK, "dash": "dash"},
    )
    if len(view.run_n):
        drawing.add_scatter(
            x=view.run_n,
            y=view.run_d,
            mode="markers",
            name="runs",
            marker={"symbol": "circle", "size": 7, "color": colour(0)},
            customdata=view.run_loss,
            hovertemplate="N %{x:.3s}<br>D %{y:.3s}<br>loss %{customdata:.4f}<extra>run</extra>",
        )
    _draw_choices(drawing, view.choices)
    # Last, so that it lies on top; star and green are the optimum's alone.
    drawing.add_scatter(
        x=[view.best[0]],
        y=[view.best[1]],
        mode="markers",
        name="the optimum",
        marker={
            "symbol": "star",
            "size": 20,
            "color": colour(2),
            "line": {"width": 1.5, "color": "white"},
        },
    )
    return drawing.update_layout(
        xaxis_range=np.log10(view.n_params[[0, -1]]), yaxis_range=np.log10(view.n_tokens[[0, -1]])
    )


def _draw_choices(drawing: go.Figure, choices: Sequence[tuple[str, float, float, float]]) -> None:
    if len(choices) > _MANY:
        names, sizes, tokens, scores = zip(*choices, strict=True)
        drawing.add_scatter(
            x=sizes,
            y=tokens,
            mode="markers",
            name=f"{len(choices)} students",
            marker={"symbol": "circle", "size": 9, "color": INK, "opacity": 0.55},
            text=names,
            customdata=scores,
            hovertemplate="%{text} (%{customdata:.0f})<br>N %{x:.3s}<extra></extra>",
        )
        return
    for k, (name, n, d, score) in enumerate(choices):
        drawing.add_scatter(
            x=[n],
            y=[d],
            mode="markers",
            name=f"{name} ({score:.0f})",
            marker={
                "symbol": _SHAPES[k % len(_SHAPES)],
                "size": 12,
                "color": colour(_HUES[k % len(_HUES)]),
            },
        )


def draw_valley(verdict: Judged) -> go.Figure:
    """Draw the true loss at the target against N, the optimum, the choice, and real runs there."""
    truth, target, mine = verdict.truth, verdict.target, verdict.submission
    n = np.geomspace(verdict.best_n_params / 30, verdict.best_n_params * 30, 120)
    drawing = figure(
        f"The truth at {flop(target)} FLOP",
        axis("model size N", "parameters", log=True, values=n),
        axis("loss", "nats per token"),
    )
    drawing.add_scatter(
        x=n,
        y=truth.predict(n, truth.flops.tokens(target, n)),
        mode="lines",
        name="the truth",
        line={"color": colour(0)},
    )
    if verdict.measured is not None:
        drawing.add_scatter(
            x=verdict.measured.N,
            y=verdict.measured.L,
            mode="markers",
            name="trained at this budget",
            marker={"symbol": "circle", "size": 9, "color": colour(0)},
        )
    for name, x, y, symbol, k in (
        ("the optimum", verdict.best_n_params, verdict.best_loss, "star", 2),
        ("your choice", mine.n_params, verdict.loss, "diamond", 3),
    ):
        marker = {"symbol": symbol, "size": 14, "color": colour(k)}
        drawing.add_scatter(x=[x], y=[y], mode="markers", name=name, marker=marker)
    return drawing


def draw_runs(runs: RunTable) -> go.Figure:
    """Draw the student's losses against N; runs of equal cost are joined."""
    drawing = figure(
        "Your runs: held-out loss against size, joined where they cost the same",
        axis("model size N", "parameters", log=True, values=runs.N if len(runs) else [1e7, 1e9]),
        axis("loss", "nats per token"),
    )
    costs = np.round(np.log(runs.C), 1)
    for k, cost in enumerate(np.unique(costs)):
        rows = np.flatnonzero(costs == cost)
        rows = rows[np.argsort(runs.N[rows])]
        drawing.add_scatter(
            x=runs.N[rows],
            y=runs.L[rows],
            mode="lines+markers",
            name=f"{flop(float(f'{np.exp(cost):.1e}'))} FLOP",
            line={"width": 1, "color": colour(k)},
            marker={"size": 9, "color": colour(k), "symbol": marker(k)},
            customdata=runs.D[rows],
            hovertemplate="N %{x:.3s}<br>D %{customdata:.3s}<br>loss %{y:.4f}<extra></extra>",
        )
    return drawing
