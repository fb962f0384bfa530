"""The game as ipywidgets: what is sent to the browser is the student's own runs."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any, Protocol

import ipywidgets as widgets
import numpy as np

from ..errors import ScalingError
from ..records import Run, RunTable
from ..ui.live_chart import LiveChart
from .pictures import draw_runs


class Game(Protocol):
    """What the view asks of a game."""

    purse: float
    target: float
    recorded: str

    @property
    def runs(self) -> RunTable: ...
    @property
    def left(self) -> float: ...
    def buy(self, n_params: float, n_tokens: float) -> Run: ...
    def commit(self, n_params: float, loss: float = float("nan")) -> Any: ...
    def reveal(self) -> Any: ...


class Judge(Protocol):
    """What the lecturer's view asks of an instructor."""

    def standings(self, submissions: Any) -> Any: ...
    def plot(self, submissions: Any) -> Any: ...


def game_view(game: Game) -> widgets.VBox:
    """Return the game's panel; its parts have names in ``panel.parts``.

    Size and cost are chosen, and the tokens follow: so runs fall into groups of equal cost, which
    is what an IsoFLOP fit compares.
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
    runs = widgets.HTML()
    chart = LiveChart("your runs: loss against model size", draw_runs(game.runs), height=380)
    middle = np.log10(np.sqrt(game.target / 120))
    choice = _log_slider("your N*", middle, middle - 2, middle + 2)
    commit = widgets.Button(description="Commit", button_style="warning")
    message = widgets.HTML()
    truth = LiveChart("the true loss surface", height=420)
    truth.layout.display = "none"

    def tokens() -> float:
        return float(cost.value * game.purse / (6 * n.value))

    def refresh(_: Any = None) -> None:
        price = cost.value * game.purse
        over = " <b>more than is left</b>" if price > game.left * (1 + 1e-9) else ""
        purse.value = (
            f"{tokens():.2e} tokens, {tokens() / n.value:.3g} a parameter, for {price:.2e} "
            f"FLOP{over}. Left: {game.left:.2e} of {game.purse:.2e}."
        )
        buy.disabled = bool(over)

    def show_runs() -> None:
        table = game.runs.to_frame()[["run_id", "N", "D", "C", "loss"]]
        runs.value = table.to_html(index=False, float_format="{:.4g}".format) if len(table) else ""
        chart.show(draw_runs(game.runs))
        chart.layout.display = "" if len(table) else "none"

    def show_truth() -> None:
        for part in (buy, commit, n, cost, choice):
            part.disabled = True
        verdict = game.reveal()
        message.value = f"<b>{verdict}</b>"
        truth.show(verdict.plot())
        truth.layout.display = ""

    def on_buy(_: Any) -> None:
        _attempt(message, lambda: game.buy(n.value, tokens()))
        show_runs()
        refresh()

    def on_commit(_: Any) -> None:
        if _attempt(message, lambda: game.commit(choice.value)):
            show_truth()

    for part in (n, cost):
        part.observe(refresh, "value")
    buy.on_click(on_buy)
    commit.on_click(on_commit)
    refresh()
    show_runs()
    question = widgets.HTML(
        f"<b>How large a model for {game.target:.2e} FLOP?</b> That is "
        f"{game.target / game.purse:.3g} times your purse; you can say it once."
    )
    panel = widgets.VBox(
        [cost, n, purse, buy, runs, chart, question, choice, commit, message, truth]
    )
    panel.parts = {
        "cost": cost,
        "n": n,
        "buy": buy,
        "chart": chart,
        "choice": choice,
        "commit": commit,
        "message": message,
        "truth": truth,
    }
    if getattr(game, "submission", None) is not None:
        show_truth()
    return panel


def instructor_view(instructor: Judge, submissions: Any) -> widgets.VBox:
    """Return standings and all predictions on the true surface; a button reads the files anew."""
    table, message = widgets.HTML(), widgets.HTML()
    chart = LiveChart("everybody's prediction on the true loss surface", height=460)
    again = widgets.Button(description="Read again", button_style="primary")

    def read(_: Any = None) -> None:
        def show() -> None:
            frame = instructor.standings(submissions)
            columns = ["student", "n_params", "n_runs", "spent", "reached", "regret", "score"]
            table.value = frame[columns].to_html(index=False, float_format="{:.4g}".format)
            chart.show(instructor.plot(submissions))

        _attempt(message, show)

    again.on_click(read)
    read()
    panel = widgets.VBox([again, message, table, chart])
    panel.parts = {"again": again, "table": table, "chart": chart, "message": message}
    return panel


def _attempt(message: widgets.HTML, action: Callable[[], Any]) -> bool:
    try:
        action()
    except (ScalingError, OSError) as error:
        message.value = f"⚠ {escape(str(error))}"
        return False
    message.value = ""
    return True


def _log_slider(label: str, at: float, low: float, high: float) -> widgets.FloatLogSlider:
    return widgets.FloatLogSlider(
        value=10**at,
        min=low,
        max=high,
        step=0.05,
        description=label,
        readout_format=".2e",
        continuous_update=False,
        style={"description_width": "8em"},
        layout={"width": "32em"},
    )
