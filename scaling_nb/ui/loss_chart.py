"""Loss against tokens while runs train: one line a run, coloured by budget, shaded by size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from ..plots.style import COLOURS, axis, count, figure, flop
from ..records import RunSpec, loss_unit
from .analysis import NARROW
from .board import Board
from .boards import board_of
from .live_chart import LiveChart, Trace
from .panel import Panel
from .snapshot import Snapshot
from .ticker import shared_ticker

if TYPE_CHECKING:
    from ..sweep import Sweep

_DASHES = ("solid", "dash", "dot", "dashdot")


class LossChart(Panel):
    """The live loss chart of a sweep.

    Parameters
    ----------
    source : Sweep or Board
    height : int, pixels
    """

    def __init__(self, source: Sweep | Board | Any, *, height: int = 350) -> None:
        self.board = board_of(source)
        unit = self.board.snapshot.unit
        drawing = figure(
            "Loss while training", axis(f"{unit} seen"), axis("training loss", loss_unit(unit))
        )
        drawing.update_layout(**NARROW)
        drawing.update_layout(legend={"title": {"text": "budget (FLOP) "}})
        drawing.update_xaxes(exponentformat="SI")
        self._drawing = go.Figure(drawing)
        drawing.add_annotation(
            text="a line for each run, once it trains",
            x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False,
        )  # fmt: skip
        drawing.update_xaxes(range=[0, 1], showticklabels=False)
        drawing.update_yaxes(range=[0, 1], showticklabels=False)
        self.chart = LiveChart("training loss of every run", drawing, height=height, controls=True)
        self.widget = self.chart
        self._sweep: Sweep | None = None
        self._known: dict[str, str] = {}
        self._stop_beat = shared_ticker().every(self.chart.publish)
        self._detach = self.board.attach(self.update, self.chart)

    def update(self, snapshot: Snapshot) -> None:
        """Add lines for runs that began."""
        if snapshot.sweep is None or snapshot.status is None:
            return
        self._sweep = snapshot.sweep
        started = {
            run_id: state for run_id, state in snapshot.status.runs.items() if state != "queued"
        }
        specs = {run.run_id: run for run in snapshot.sweep.plan.runs}
        new = [run_id for run_id in started if run_id not in self._known and run_id in specs]
        if new:
            self.chart.show(self._drawing)
            self.chart.add(traces([specs[k] for k in new], snapshot.sweep.plan.runs))
            # A run that is older than this chart has a past; its first steps are on their way.
            past = [k for k in new if started[k] != "running" or len(new) > 4 or not self._known]
            for run_id in past:
                tokens, loss = snapshot.sweep.curve(run_id)
                if len(loss):
                    self.chart.load(run_id, tokens, loss, took(snapshot, run_id, self.chart))
            if past:
                self.chart.refresh()
        for run_id, state in snapshot.status.runs.items():
            if state == "queued" and self._known.get(run_id) not in (None, "queued"):
                self.chart.restart(run_id)
            if run_id in self._known or run_id in new:
                self._known[run_id] = state
        summary = f"{self.chart.n_drawn} runs drawn"
        if self.chart.summary != summary:
            self.chart.summary = summary

    def close(self) -> None:
        """Stop following the sweep."""
        super().close()
        self._stop_beat()


def took(snapshot: Snapshot, run_id: str, chart: LiveChart) -> float:
    """Return the seconds a run has taken so far.

    One that trains, and that nobody here saw begin, is taken to have begun with the sweep.
    """
    if snapshot.runs is not None:
        ids = snapshot.runs.columns["run_id"]
        here = np.flatnonzero(ids == run_id)
        if len(here):
            return float(snapshot.runs.columns["seconds"][here[0]])
    assert snapshot.sweep is not None
    assert snapshot.status is not None
    for run in snapshot.sweep.failures:
        if run.run_id == run_id and np.isfinite(run.seconds):
            return run.seconds
    known = chart.clock(run_id)
    return known if np.isfinite(known) else snapshot.status.elapsed


def traces(specs: list[RunSpec], plan: tuple[RunSpec, ...]) -> list[Trace]:
    """Return one line a run: budget decides colour and dash, size the shade."""
    budgets = sorted({run.budget for run in plan})
    sizes = sorted({run.n_params for run in plan})
    made = []
    for spec in specs:
        place = budgets.index(spec.budget)
        shade = sizes.index(spec.n_params) / max(len(sizes) - 1, 1)
        made.append(
            Trace(
                key=spec.run_id,
                label=f"N {count(spec.n_params)}, seed {spec.seed}",
                group=flop(spec.budget),
                rank=place,
                full=COLOURS[place % len(COLOURS)],
                colour=shaded(COLOURS[place % len(COLOURS)], shade),
                dash=_DASHES[place // len(COLOURS) % len(_DASHES)],
                scales={"steps": 1 / spec.tokens_per_step, "flops": spec.flops_per_token},
            )
        )
    return made


def shaded(colour: str, share: float) -> str:
    """Return a colour mixed with grey: small models pale, the largest in full."""
    rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)], float)
    mixed = rgb * (0.45 + 0.55 * share) + 165.0 * (0.55 - 0.55 * share)
    return "rgb({},{},{})".format(*mixed.round().astype(int))
