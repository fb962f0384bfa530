"""4 Answer: how big and how much data for a budget, how sure, and all of it to take away."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w

from ..errors import ScalingError
from ..plots.report import allocation_table
from ..plots.style import count
from .analysis import Analysis, target_of
from .board import Board
from .boards import board_of
from .comms import keep_listening
from .controls import Mirror, button, labelled, row, section, title, warning_html, words
from .live_chart import LiveChart
from .panel import Panel
from .slider import Slider
from .snapshot import Snapshot
from .take_away import RUNS, code_cell, latex, report, table_budgets
from .ticker import shared_ticker
from .wording import answer_html, details_html, plain

_DECADES = 5.0


class AnswerPanel(Panel):
    """Slider and field for C; N, D and loss with intervals; the table; what can be taken away.

    Parameters
    ----------
    source : RunTable, Sweep or Board
    name : str
        Heads the report.
    chart : LiveChart, optional
        Exported as PNG and SVG.
    """

    def __init__(
        self, source: Board | Any, *, name: str = "Scaling law", chart: LiveChart | None = None
    ) -> None:
        self.board = board_of(source)
        unit = self.board.snapshot.unit
        self.name, self._chart = name, chart
        self._slider = Mirror(
            labelled(
                Slider(value=1e15, min=6, max=27, step=0.02, decades=True, around=_DECADES),
                "compute C",
                "The budget to answer for, FLOP",
                "240px",
            ),
            lambda value: self.board.ask(target=float(f"{value:.3g}")),
        )
        self._field = Mirror(
            labelled(
                w.Text(continuous_update=False), "C (FLOP)", "The budget as a number", "180px"
            ),
            lambda text: self._number(text, "target"),
        )
        self._cap = Mirror(
            labelled(
                w.Text(placeholder="no cap", continuous_update=False),
                f"unique {unit}",
                f"Unique {unit} there are: beyond them data repeat, and are worth less. Takes "
                "Approach 3",
                "190px",
            ),
            lambda text: self._number(text, "max_tokens"),
        )
        self._served = Mirror(
            labelled(
                w.Text(placeholder="none", continuous_update=False),
                f"{unit} to serve",
                f"{unit.capitalize()} the model will serve in its life: many favour a smaller "
                "model. Takes "
                "Approach 3",
                "190px",
            ),
            lambda text: self._number(text, "inference_tokens"),
        )
        self._answer = words(answer_html(None), "snb-answer")
        self._details = words(kind="snb-line")
        self._table = words()
        self._code = w.Textarea(
            description="code cell",
            tooltip="Copy into a cell: the same numbers, without the panel",
            disabled=False,
            layout={"width": "100%"},
            style={"description_width": "initial"},
        )
        self._code.add_class("snb-code")
        self._code.layout.display = "none"
        self._written = words(kind="snb-written")
        exports = [
            button("code cell", self._show_code, "Plain Python that gives these numbers again"),
            button("CSV", lambda: self._write("csv"), "Runs, exclusions with reasons, and answers"),
            button("LaTeX", lambda: self._write("tex"), "The table for a paper"),
            button("HTML report", lambda: self._write("html"), "One page, offline, to send around"),
        ]
        if chart is not None:
            exports += [
                button("PNG", lambda: self._picture("png"), "The IsoFLOP chart as a picture"),
                button("SVG", lambda: self._picture("svg"), "The IsoFLOP chart for a paper"),
            ]
        self.widget = section(
            row(title("4 ANSWER"), self._slider.control, self._field.control, self._cap.control,
                self._served.control),
            self._answer,
            self._details,
            w.Accordion([self._table], titles=("compute-optimal table",)),
            row(*exports, self._written),
            self._code,
        )  # fmt: skip
        self._analysis: Analysis | None = None
        self._behind = 0
        keep_listening(self.widget)
        self._detach = self.board.attach(self.update)

    def update(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        analysis, question = snapshot.analysis, snapshot.question
        if snapshot.runs is not None and len(snapshot.runs):
            target = target_of(snapshot.runs, question)
            self._slider.show(target)
            self._field.show(plain(f"{target:.4g}"))
        for mirror, value in (
            (self._cap, question.max_tokens),
            (self._served, question.inference_tokens),
        ):
            mirror.show("" if not value else plain(f"{value:.4g}"))
        behind = len(snapshot.runs) if snapshot.runs is not None and snapshot.behind else 0
        if (analysis, behind) == (self._analysis, self._behind):
            return
        self._details.value = details_html(analysis, behind)
        self._behind = behind
        if analysis is self._analysis:
            return
        self._analysis = analysis
        self._answer.value = answer_html(analysis)
        if analysis is None or analysis.answer is None:
            self._table.value = ""
        elif analysis.final:
            self._table.value = table_html(analysis)
        if analysis is not None:
            self._code.value = code_cell(analysis.runs, analysis.question)

    def _number(self, text: str, name: str) -> None:
        if not text.strip():
            self._written.value = ""
            self.board.ask(**{name: None})
            return
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            self._written.value = warning_html(f"{text!r} is no positive number. Write 1e15.")
            return
        self._written.value = ""
        changes: dict[str, Any] = {name: value}
        if name != "target" and self.board.snapshot.question.method == "isoflop":
            # Parabolas know nothing of it; a law of N and D does.
            changes["method"] = "log-huber"
        self.board.ask(**changes)

    def _show_code(self) -> None:
        def act() -> None:
            hidden = self._code.layout.display == "none"
            self._code.layout.display = "flex" if hidden else "none"
            if hidden:
                self._write_now("csv")

        shared_ticker().call(act)

    def _write(self, form: str) -> None:
        shared_ticker().call(lambda: self._write_now(form))

    def _write_now(self, form: str) -> None:
        try:
            said = write(self.board.settle_here(), form, Path.cwd(), self.name)
        except (ScalingError, OSError) as error:
            said = str(error)
        self._written.value = f"<span class='snb-muted'>{escape(said)}</span>"

    def _picture(self, form: str) -> None:
        def keep(data: bytes) -> None:
            path = Path.cwd() / f"isoflop.{form}"
            path.write_bytes(data)
            text = f"wrote {path.name}"
            shared_ticker().call(
                lambda: setattr(self._written, "value", f"<span class='snb-muted'>{text}</span>")
            )

        chart = self._chart
        if chart is not None:
            shared_ticker().call(lambda: chart.request_image(keep, form))


def write(snapshot: Snapshot, form: str, folder: Path, name: str) -> str:
    """Write one form of the result into `folder`; returns a sentence with the files' names."""
    analysis = snapshot.analysis
    if analysis is None or snapshot.runs is None:
        return "there is nothing to take away yet: no run has finished"
    if form == "csv":
        analysis.runs.to_csv(folder / RUNS)
        if analysis.asked is None or analysis.answer is None:
            return f"wrote {RUNS}"
        table = analysis.asked.chinchilla_table(table_budgets(analysis))
        table.to_csv(folder / "allocation.csv", index=False)
        return f"wrote {RUNS} and allocation.csv"
    file = {"tex": "allocation.tex", "html": "scaling_report.html"}[form]
    text = latex(analysis) if form == "tex" else report(snapshot, title=name)
    (folder / file).write_text(text, encoding="utf-8")
    return f"wrote {file}"


def table_html(analysis: Analysis) -> str:
    """Return the compute-optimal table, counts in words."""
    asked = analysis.asked
    assert asked is not None
    table = allocation_table(asked, table_budgets(analysis))
    text = plain(table.to_html(index=False, border=0))
    served = analysis.question.inference_tokens
    head = (
        f"<p>C trains for a budget's loss with {count(served)} {escape(asked.unit)} served</p>"
        if served
        else ""
    )
    return f'<div class="snb-scroll">{head}{text}</div>'
