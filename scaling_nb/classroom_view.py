"""The classroom game as ipywidgets: what is sent to the browser is the student's own runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import ipywidgets as widgets
import numpy as np

from .errors import PlanError
from .plots.style import axis, colour, figure, marker
from .records import Run, RunTable


class Game(Protocol):
    """What the view asks of a game."""

    purse: float
    target: float

    @property
    def runs(self) -> RunTable: ...
    @property
    def left(self) -> float: ...
    def buy(self, n_params: float, n_tokens: float) -> Run: ...
    def commit(self, n_params: float, loss: float = float("nan")) -> Any: ...
    def reveal(self) -> Any: ...


def game_view(game: Game) -> widgets.VBox:
    """Return the game's panel; its parts have names in ``panel.parts``."""
    center = np.log10(np.sqrt(game.purse / 120))
    n = _log_slider("parameters N", center - 1, center - 3, center + 3)
    d = _log_slider("tokens D", center - 0.2, center - 2, center + 4)
    buy = widgets.Button(description="Train this model", button_style="primary")
    purse = widgets.HTML()
    runs = widgets.HTML()
    chart = widgets.Output()
    choice = _log_slider("your N*", center + 1, center - 2, center + 4)
    commit = widgets.Button(description="Commit", button_style="warning")
    message = widgets.HTML()
    truth = widgets.Output()

    def refresh(_: Any = None) -> None:
        cost = 6 * n.value * d.value
        over = " <b>more than is left</b>" if cost > game.left else ""
        purse.value = (
            f"This run costs {cost:.2e} FLOP{over}. Left: {game.left:.2e} of {game.purse:.2e}."
        )
        buy.disabled = bool(over)

    def show_runs() -> None:
        table = game.runs.to_frame()[["run_id", "N", "D", "C", "loss"]]
        runs.value = table.to_html(index=False, float_format="{:.4g}".format)
        chart.outputs = ()
        chart.append_display_data(_chart(game.runs))

    def on_buy(_: Any) -> None:
        _attempt(message, lambda: game.buy(n.value, d.value))
        show_runs()
        refresh()

    def on_commit(_: Any) -> None:
        if not _attempt(message, lambda: game.commit(choice.value)):
            return
        buy.disabled = commit.disabled = n.disabled = d.disabled = choice.disabled = True
        verdict = game.reveal()
        message.value = f"<b>{verdict}</b>"
        truth.append_display_data(verdict.plot())

    n.observe(refresh, "value")
    d.observe(refresh, "value")
    buy.on_click(on_buy)
    commit.on_click(on_commit)
    refresh()
    question = widgets.HTML(
        f"<b>How large a model for {game.target:.2e} FLOP?</b> That is 100 times your purse; you "
        "can say it once."
    )
    panel = widgets.VBox([n, d, purse, buy, runs, chart, question, choice, commit, message, truth])
    panel.parts = {
        "n": n,
        "d": d,
        "buy": buy,
        "choice": choice,
        "commit": commit,
        "message": message,
    }
    return panel


def _attempt(message: widgets.HTML, action: Callable[[], Any]) -> bool:
    try:
        action()
    except PlanError as error:
        message.value = f"⚠ {error}"
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


def _chart(runs: RunTable) -> Any:
    drawing = figure(
        "Your runs",
        axis("model size N", "parameters", log=True, values=runs.N),
        axis("loss", "nats per token"),
    )
    drawing.add_scatter(
        x=runs.N,
        y=runs.L,
        mode="markers+text",
        text=[f"{d:.1e} tokens" for d in runs.D],
        textposition="top center",
        marker={"size": 10, "color": colour(0), "symbol": marker(0)},
    )
    return drawing
