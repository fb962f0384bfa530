"""2 Train: start, watch, pause, stop; the charts that grow, the table of runs, the event log."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import plotly.graph_objects as go

from ..plots.style import axis, figure
from .analysis import Analysis
from .board import Board
from .boards import board_of
from .comms import keep_listening
from .controls import button, row, section, title, warning_html, words
from .live_chart import LiveChart
from .loss_chart import LossChart
from .panel import Panel
from .run_list import RunList, rows_of
from .snapshot import Entry, Snapshot
from .status import StatusLine

if TYPE_CHECKING:
    from ..sweep import Sweep

_ROWS_EVERY = 4


class TrainPanel(Panel):
    """Controls of a sweep, its live charts, its runs.

    With a table of runs instead of a sweep, only the charts of the fit and the table are shown.

    Parameters
    ----------
    source : Sweep, RunTable or Board
    """

    says_refusals = True

    def __init__(self, source: Sweep | Board | Any) -> None:
        self.board = board_of(source)
        self._trains = self.board.snapshot.recipe is not None
        self.status = StatusLine()
        self._refused = words()
        self._start = button(
            "start",
            self.board.start,
            "Train the planned runs, or go on with them",
            kind="success",
            icon="play",
        )
        self._pause = button(
            "pause",
            self.board.pause,
            "Hold every run between two steps, or let them go on",
            icon="pause",
        )
        self._stop = button(
            "stop",
            self.board.stop,
            "End after the current step; finished runs stand",
            icon="stop",
        )
        self.loss = LossChart(self.board) if self._trains else None
        self.isoflop = LiveChart(
            "IsoFLOP curves: held-out loss against model size",
            WAITING_ISOFLOP,
        )
        self.isoflop.on_pick(self._picked)
        self.frontier = LiveChart(
            "compute-optimal model size against compute",
            WAITING_FRONTIER,
        )
        verbs = ["exclude", "restore", *(["retry", "skip"] if self._trains else [])]
        self.runs = RunList(
            self._ordered, verbs, trains=self._trains, unit=self.board.snapshot.unit
        )
        self._log = words(kind="snb-log-box")
        charts = [c for c in (self.loss and self.loss.widget, self.isoflop, self.frontier) if c]
        buttons = [self._start, self._pause, self._stop] if self._trains else []
        parts: list[w.Widget] = [
            row(title("2 TRAIN" if self._trains else "RUNS"), *buttons),
            self.status,
            self._refused,
            row(*charts, kind="snb-charts"),
            words(
                "in the IsoFLOP chart, click a point to exclude its run or to take it back; with "
                "the lasso of the chart's menu, several",
                "snb-hint",
            ),
            w.Accordion([self.runs], titles=("runs",), selected_index=0),
        ]
        self._record = w.Accordion([self._log], titles=("event log",))
        self.widget = section(*parts, self._record)
        self._analysis: Analysis | None = None
        self._entries: tuple[Entry, ...] | None = None
        self._beats = 0
        keep_listening(self.widget)
        self._detach = self.board.attach(self.update)

    def update(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        self._show_status(snapshot)
        refused = warning_html(snapshot.refusal) if snapshot.refusal else ""
        if self._refused.value != refused:
            self._refused.value = refused
        if snapshot.analysis is not self._analysis:
            self._analysis = snapshot.analysis
            self._show_figures(snapshot.analysis)
            self._beats = 0
        # The table is the heaviest: while runs train, once in a few beats is enough.
        if self._beats % _ROWS_EVERY == 0 or not snapshot.alive:
            rows = rows_of(snapshot)
            if rows != self.runs.rows:
                self.runs.rows = rows
        self._beats += 1
        if snapshot.log != self._entries:
            self._entries = snapshot.log
            self._log.value = log_html(snapshot.log)

    def close(self) -> None:
        """Stop following the board."""
        super().close()
        if self.loss is not None:
            self.loss.close()

    def _show_status(self, snapshot: Snapshot) -> None:
        status = snapshot.status
        state = status.state if status else "new"
        changed = {
            "done": snapshot.n_done,
            "total": status.n_runs if status else len(snapshot.plan.runs) if snapshot.plan else 0,
            "text": status_text(snapshot),
            "said": snapshot.sentence,
        }
        for name, value in changed.items():
            if getattr(self.status, name) != value:
                setattr(self.status, name, value)
        if not self._trains:
            return
        planned = snapshot.plan is not None and not snapshot.planning and not snapshot.plan_problem
        new_plan = (
            snapshot.sweep is not None
            and snapshot.plan is not None
            and snapshot.sweep.plan.plan_id != snapshot.plan.plan_id
        )
        wanted = {
            self._start: (
                "go on" if state in ("cancelled", "failed") and not new_plan else "start",
                not planned
                or state in ("running", "paused")
                or (state == "finished" and not new_plan),
            ),
            self._pause: (
                "resume" if state == "paused" else "pause",
                state not in ("running", "paused"),
            ),
            self._stop: ("stop", state not in ("running", "paused")),
        }
        for control, (text, disabled) in wanted.items():
            if control.description != text:
                control.description = text
            if control.disabled != disabled:
                control.disabled = disabled

    def _show_figures(self, analysis: Analysis | None) -> None:
        figures = {} if analysis is None else analysis.figures
        # Nothing that has lost its runs stays: a chart of before would answer for now.
        self.isoflop.show(figures.get("isoflop", WAITING_ISOFLOP))
        self.frontier.show(figures.get("frontier", WAITING_FRONTIER))
        self.isoflop.summary = self.frontier.summary = ""
        if analysis is None:
            return
        found = analysis.iso.optima if analysis.iso else ()
        self.isoflop.summary = f"{len(found)} budgets with a minimum"
        if analysis.answer is not None:
            self.frontier.summary = f"N* is {analysis.answer.n_params:.3g}"

    def _picked(self, keys: tuple[str, ...], how: str) -> None:
        if how == "click":
            self.board.toggle(keys, "clicked in the IsoFLOP chart")
        else:
            self.board.surround(keys, "lassoed in the IsoFLOP chart")

    def _ordered(self, verb: str, ids: tuple[str, ...], reason: str) -> None:
        if verb == "exclude":
            self.board.exclude(ids, reason)
        else:
            getattr(self.board, verb)(ids)


def waiting(title: str, x: str, y: str) -> go.Figure:
    """Return axes that say what will be seen in them."""
    drawing = figure(title, axis(x), axis(y))
    drawing.update_layout(margin={"l": 60, "r": 10, "t": 36, "b": 45}, title_font_size=13)
    drawing.update_xaxes(showticklabels=False, range=[0, 1])
    drawing.update_yaxes(showticklabels=False, range=[0, 1])
    return drawing.add_annotation(
        text="appears as runs finish",
        x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False,
    )  # fmt: skip


WAITING_ISOFLOP = waiting("IsoFLOP curves and their minima", "model size N", "held-out loss")
WAITING_FRONTIER = waiting("How big: N*(C)", "training compute C", "N*")


def status_text(snapshot: Snapshot) -> str:
    """Return where the sweep is, in a line."""
    status = snapshot.status
    if status is None:
        runs = snapshot.runs
        if runs is not None:
            out = len(runs.exclusions)
            return f"{len(runs)} runs" + (f", {out} excluded" if out else "")
        return "not started"
    failed = sum(s in ("failed", "diverged") for s in status.runs.values())
    parts = [f"{snapshot.n_done}/{status.n_runs} runs", status.state, status.eta_text()]
    if failed:
        parts.append(f"{failed} failed or diverged")
    if snapshot.runs is not None and snapshot.runs.exclusions:
        parts.append(f"{len(snapshot.runs.exclusions)} excluded")
    return " · ".join(part for part in parts if part)


def log_html(entries: tuple[Entry, ...]) -> str:
    """Return the event log, newest first."""
    lines = "".join(
        f"<div><span class='snb-muted'>{e.clock}</span> {escape(e.text)}</div>"
        for e in reversed(entries)
    )
    return f'<div class="snb-log" role="log" aria-label="event log" tabindex="0">{lines}</div>'
