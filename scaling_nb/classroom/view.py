"""The game as ipywidgets: what is sent to the browser is the student's own runs."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

import ipywidgets as widgets
import numpy as np

from ..errors import ScalingError
from ..events import Signal
from ..plots.style import count, flop
from ..records import Run, RunTable
from ..ui.live_chart import LiveChart
from ..ui.panel import framed
from ..ui.slider import Slider
from ..ui.wording import plain
from .pictures import draw_runs, draw_truth, truth_view
from .standings import Standings, table
from .submission import HEADER, Submission

if TYPE_CHECKING:
    import pandas as pd


_INSIDE = 1e-9
"""Decades by which a slider stays within what can be bought, against rounding."""


class Game(Protocol):
    """What the view asks of a game."""

    purse: float
    target: float
    recorded: str
    submission: Submission | None
    changed: Signal[Any]

    @property
    def runs(self) -> RunTable: ...
    @property
    def left(self) -> float: ...
    def sizes(self, cost: float) -> tuple[float, float]: ...
    def buy(self, n_params: float, n_tokens: float) -> Run: ...
    def commit(self, n_params: float, loss: float = float("nan")) -> Any: ...
    def reveal(self) -> Any: ...


class Judge(Protocol):
    """What the lecturer's view asks of an instructor."""

    def read(self, submissions: Any) -> Standings: ...
    def nothing(self, found: Standings) -> str: ...


def game_view(game: Game) -> widgets.VBox:
    """Return the game's panel; its parts have names in ``panel.parts``.

    Size and cost are chosen, and the tokens follow: so runs fall into groups of equal cost, which
    is what an IsoFLOP fit compares. The panel follows the game, also where Python buys or commits.
    """
    shares = (0.01, 0.02, 0.05, 0.1, 0.2) if not game.recorded else (1 / 32, 1 / 16, 1 / 8, 1 / 4)
    cost = widgets.Dropdown(
        options=[(f"{share:.3g} of the purse", share) for share in shares],
        description="cost of a run",
        style={"description_width": "8em"},
    )
    center = np.log10(np.sqrt(game.purse * shares[0] / 120))
    n = _log_slider("parameters N", center, center - 1.5, center + 2)
    buy = widgets.Button(description="Train this model", button_style="primary")
    purse = widgets.HTML()
    trouble = widgets.HTML()
    runs = widgets.HTML()
    chart = LiveChart("your runs: loss against model size", draw_runs(game.runs), height=380)
    middle = np.log10(np.sqrt(game.target / 120))
    choice = _log_slider("your N*", middle, middle - 2, middle + 2)
    commit = widgets.Button(description="Commit", button_style="warning")
    message = widgets.HTML()
    truth = LiveChart("the true loss surface", height=420)
    truth.layout.display = "none"

    def price() -> float:
        return float(cost.value) * game.purse

    def tokens() -> float:
        return price() / (6.0 * float(n.value))

    def refresh(_: Any = None) -> None:
        over = " <b>more than is left</b>" if price() > game.left * (1 + 1e-9) else ""
        purse.value = (
            f"{count(n.value)} parameters, {count(tokens())} tokens, {tokens() / n.value:.3g} a "
            f"parameter, for {flop(price())} FLOP{over}. Left: {flop(max(game.left, 0.0))} of "
            f"{flop(game.purse)}."
        )
        buy.disabled = bool(over) or game.submission is not None

    def new_cost(_: Any = None) -> None:
        low, high = np.log10(game.sizes(price()))
        n.bound(low + _INSIDE, high - _INSIDE)
        refresh()

    def show(_: Any = None) -> None:
        bought = game.runs
        runs.value = _runs_table(bought) if len(bought) else ""
        chart.show(draw_runs(bought))
        chart.layout.display = "" if len(bought) else "none"
        refresh()
        if game.submission is not None and not commit.disabled:
            show_truth(game.submission)

    def show_truth(submission: Submission) -> None:
        for part in (commit, n, cost, choice):
            part.disabled = True
        choice.put(submission.n_params)
        verdict = game.reveal()
        message.value = f"<b>{escape(plain(str(verdict)))}</b>{_line_to_send(submission)}"
        truth.show(verdict.plot())
        truth.layout.display = ""

    n.observe(refresh, "value")
    cost.observe(new_cost, "value")
    buy.on_click(lambda _: _attempt(trouble, lambda: game.buy(n.value, tokens())))
    commit.on_click(lambda _: _attempt(message, lambda: game.commit(choice.value)))
    game.changed.connect(show)
    new_cost()
    show()
    question = widgets.HTML(
        f"<b>How large a model for {flop(game.target)} FLOP?</b> That is "
        f"{game.target / game.purse:.3g} times your purse; you can say it once."
    )
    parts = {
        "cost": cost,
        "n": n,
        "purse": purse,
        "buy": buy,
        "trouble": trouble,
        "runs": runs,
        "chart": chart,
        "question": question,
        "choice": choice,
        "commit": commit,
        "message": message,
        "truth": truth,
    }
    return _panel(parts)


def instructor_view(instructor: Judge, submissions: Any) -> widgets.VBox:
    """Return standings and all predictions on the true surface; a button reads the files anew."""
    standings, message = widgets.HTML(), widgets.HTML()
    chart = LiveChart("everybody's prediction on the true loss surface", height=460)
    again = widgets.Button(description="Read again", button_style="primary")

    def read(_: Any = None) -> None:
        found = instructor.read(submissions)
        told = found.left_out if found.verdicts else [instructor.nothing(found)]
        message.value = "".join(f"<p>⚠ {escape(plain(sentence))}</p>" for sentence in told)
        standings.value = _standings_table(table(found.verdicts)) if found.verdicts else ""
        if found.verdicts:
            chart.show(draw_truth(truth_view(found.verdicts)))
        chart.layout.display = "" if found.verdicts else "none"

    again.on_click(read)
    read()
    return _panel({"again": again, "message": message, "table": standings, "chart": chart})


def _panel(parts: dict[str, widgets.Widget]) -> widgets.VBox:
    panel = framed(*parts.values())
    panel.parts = parts
    return panel


def _line_to_send(submission: Submission) -> str:
    """Return the student's line to copy, and as a file to save: the kernel's disk is its own."""
    text = f"{HEADER}\n{submission.line}\n"
    coded = base64.b64encode(text.encode()).decode()
    name = f"{submission.student or 'no name'}.csv"
    return (
        "<p>Your line for the lecturer, to copy into a form or a chat, or "
        f'<a download="{escape(name)}" href="data:text/csv;base64,{coded}" '
        'style="color:inherit;text-decoration:underline">to save as a file</a>:'
        f"<br><code style='user-select:all;white-space:pre-wrap'>{escape(submission.line)}</code>"
        "</p>"
    )


def _runs_table(runs: RunTable) -> str:
    rows = [
        (run.run_id, count(run.N), count(run.D), flop(run.C), f"{run.loss:.4f}") for run in runs
    ]
    return _table(("run", "N", "D", "C (FLOP)", "loss"), rows)


def _standings_table(frame: pd.DataFrame) -> str:
    rows = [
        (
            row["student"],
            count(row["n_params"]),
            str(row["n_runs"]),
            flop(row["spent"]) if np.isfinite(row["spent"]) else "",
            f"{row['reached']:.4f}",
            flop(row["regret"]),
            f"{row['score']:.1f}",
        )
        for row in frame.to_dict("records")
    ]
    return _table(("student", "N", "runs", "spent", "reached", "regret (FLOP)", "score"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(kind: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return (
        '<div style="overflow:auto;max-height:26em"><table>'
        f"<thead>{line('th', heads)}</thead><tbody>{body}</tbody></table></div>"
    )


def _attempt(message: widgets.HTML, action: Callable[[], Any]) -> None:
    message.value = ""
    try:
        action()
    except (ScalingError, OSError) as error:
        message.value = f"⚠ {escape(plain(str(error)))}"


def _log_slider(label: str, at: float, low: float, high: float) -> Slider:
    made = Slider(value=10**at, min=low, max=high, step=0.05, decades=True, digits=3)
    made.description = label
    made.layout.width = "32em"
    return made
