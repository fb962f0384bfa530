"""3 Fit: method, irreducible loss, what is left out, what the data cannot tell."""

from __future__ import annotations

import math
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from ..errors import counted
from ..fit import FitWarning, IsoFlopFit, LawFit
from .analysis import METHODS, SYMBOLS, Analysis
from .board import Board
from .boards import board_of
from .choices import Remedy, remedy_for
from .comms import keep_listening
from .controls import Mirror, button, labelled, row, section, title, warning_html, words
from .live_chart import LiveChart
from .panel import Panel
from .slider import Slider
from .snapshot import Snapshot
from .wording import in_controls, wants_approach_3

if TYPE_CHECKING:
    from ..records import RunTable

_HANDS = (("alpha", "α", 0.05, 1.5), ("beta", "β", 0.05, 1.5))


class FitPanel(Panel):
    """The fit and its doubts; alone, with the charts that points are excluded in.

    Parameters
    ----------
    source : RunTable, Sweep or Board
    alone : bool, optional
        Whether the IsoFLOP chart is shown here; by default where the panel stands alone.
    """

    def __init__(self, source: RunTable | Board | Any, *, alone: bool | None = None) -> None:
        alone = not isinstance(source, Board) if alone is None else alone
        self.board = board_of(source)
        self._method = Mirror(
            labelled(
                w.Dropdown(options=list(METHODS.items())),
                "method",
                "Approach 2 fits a parabola to each IsoFLOP curve; Approach 3 fits "
                "L = E + A/N^α + B/D^β to all runs at once",
                "285px",
            ),
            self._choose_method,
        )
        self._floor = Mirror(
            labelled(
                w.Dropdown(options=[("free", "free"), ("fixed", "fixed")]),
                "irreducible loss E",
                "The loss that no model and no amount of data goes below: fitted, or held",
                "200px",
            ),
            self._hold,
        )
        self._teach = Mirror(
            labelled(
                w.Checkbox(indent=False),
                "teaching: by hand",
                "Drag α, β and E yourself and see the law miss the data; A and B are refitted",
                "160px",
            ),
            self._teach_changed,
        )
        self._hand = {
            name: Mirror(
                labelled(
                    Slider(value=0.35, min=low, max=high, step=0.005, digits=3),
                    symbol,
                    f"Exponent {symbol} of the law, held where you put it",
                    "260px",
                ),
                partial(self._drag, name),
            )
            for name, symbol, low, high in _HANDS
        }
        self._hand["E"] = Mirror(
            labelled(
                Slider(value=1.0, min=0.0, max=4.0, step=0.005, digits=3),
                "E",
                "Irreducible loss, held where you put it",
                "260px",
            ),
            lambda value: self._drag("E", value),
        )
        self._snap = button("snap to optimum", self._release, "Let the data decide all again")
        self._undo = button("↶ undo", self.board.undo, "Take the last exclusion back")
        self._reset = button(
            "take all back", lambda: self.board.restore(None), "Let every excluded run count again"
        )
        self._out = words()
        self._numbers = words(numbers_html(None), "snb-line")
        self._notes = w.VBox()
        self._notes.add_class("snb-notes")
        self._hands = row(*(m.control for m in self._hand.values()), self._snap)
        self._hands.layout.display = "none"
        self.isoflop = (
            LiveChart("IsoFLOP curves: held-out loss against model size") if alone else None
        )
        if self.isoflop is not None:
            self.isoflop.on_pick(
                lambda keys, how: (
                    self.board.toggle(keys, "clicked in the IsoFLOP chart")
                    if how == "click"
                    else self.board.surround(keys, "lassoed in the IsoFLOP chart")
                )
            )
        self.residuals = LiveChart("residuals of the fitted law", height=240)
        charts = [c for c in (self.isoflop, self.residuals) if c is not None]
        self._drawn = row(*charts, kind="snb-charts snb-two")
        self.widget = section(
            row(title("3 FIT"), self._method.control, self._floor.control, self._teach.control,
                self._out, self._undo, self._reset),
            self._hands,
            self._numbers,
            self._notes,
            self._drawn if alone else w.Accordion([self._drawn], titles=("residuals",)),
        )  # fmt: skip
        self._analysis: Analysis | None = None
        self._alive = False
        self._shown_notes: tuple[Any, ...] | None = None
        keep_listening(self.widget)
        self._detach = self.board.attach(self.update)

    def update(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        question, analysis = snapshot.question, snapshot.analysis
        self._method.show(question.method)
        teaching = "alpha" in question.fixed or "beta" in question.fixed
        self._floor.control.disabled = teaching
        self._floor.show("fixed" if "E" in question.fixed and not teaching else "free")
        self._teach.show(teaching)
        self._hands.layout.display = "flex" if question.fixed else "none"
        for name, mirror in self._hand.items():
            mirror.control.layout.display = "flex" if name in question.fixed else "none"
            if name in question.fixed:
                mirror.show(float(question.fixed[name]))
        out = len(snapshot.runs.exclusions) if snapshot.runs is not None else 0
        self._out.value = f"excluded: {out}"
        self._undo.disabled = not snapshot.undo
        self._reset.disabled = not out
        (self._notes.add_class if snapshot.alive else self._notes.remove_class)("snb-alive")
        if analysis is self._analysis and snapshot.alive == self._alive:
            return
        self._analysis, self._alive = analysis, snapshot.alive
        self._numbers.value = numbers_html(analysis)
        self._show_notes(snapshot)
        if analysis is None:
            return
        if "residuals" in analysis.figures:
            self.residuals.show(analysis.figures["residuals"])
        if self.isoflop is not None:
            self.isoflop.show(analysis.figures["isoflop"])

    def _show_notes(self, snapshot: Snapshot) -> None:
        analysis = snapshot.analysis
        notes = fit_warnings(analysis)
        if snapshot.alive:
            # Sizes that have not finished yet are not missing.
            notes = [note for note in notes if note.code != "too_few_sizes"]
        plan = snapshot.sweep.plan if snapshot.sweep is not None else None
        remedies = [remedy_for(note, plan) for note in notes]
        key = (snapshot.question.method, *zip(map(str, notes), remedies, strict=True))
        if key == self._shown_notes:
            return
        self._shown_notes = key
        lines = []
        for note, remedy in zip(notes, remedies, strict=True):
            line = [words(warning_html(in_controls(str(note))))]
            if remedy is not None:
                line.append(self._heal_button(remedy))
            if wants_approach_3(note, snapshot.question.method):
                line.append(
                    button(
                        "use Approach 3",
                        lambda: self._choose_method("log-huber"),
                        "Fit one law to all runs at once, instead of a parabola to each budget",
                        kind="info",
                    )
                )
            lines.append(row(*line))
        old, self._notes.children = self._notes.children, tuple(lines)
        for part in lines:
            keep_listening(part)
        for part in old:
            part.close()

    def _heal_button(self, remedy: Remedy) -> w.Button:
        sizes = ", ".join(f"{size:g}" for size in remedy.sizes)
        tip = f"Add sizes {sizes} at {remedy.budget:.3g} FLOP to the plan, and train them"
        return button(remedy.label, lambda: self.board.heal(remedy), tip, kind="info")

    def _choose_method(self, method: Any) -> None:
        if method == "isoflop":
            self.board.ask(method=method, fixed={}, max_tokens=None, inference_tokens=None)
        else:
            self.board.ask(method=method)

    def _hold(self, choice: Any) -> None:
        self.board.hold(*(["E"] if choice == "fixed" else []))

    def _teach_changed(self, teaching: Any) -> None:
        self.board.hold(*(("alpha", "beta", "E") if teaching else ()))

    def _drag(self, name: str, value: float) -> None:
        fixed = dict(self.board.snapshot.question.fixed)
        if name in fixed:
            self.board.ask(fixed={**fixed, name: value})

    def _release(self) -> None:
        """Put what is held by hand back to where the data want it."""
        fixed = self.board.snapshot.question.fixed
        for name in fixed:
            self._hand[name]._moved = 0.0
        self.board.hold(*fixed)


def fit_warnings(analysis: Analysis | None) -> list[FitWarning]:
    """Return what should be known, each once; the reason where there is no fit at all."""
    if analysis is None:
        return []
    notes = list({str(note): note for note in analysis.warnings}.values())
    if analysis.problem and analysis.problem not in " ".join(map(str, notes)):
        notes.insert(0, FitWarning(code="no_answer", message=analysis.problem, remedy=""))
    return notes


def numbers_html(analysis: Analysis | None) -> str:
    """Return exponents and parameters with their intervals."""
    if analysis is None:
        return '<span class="snb-muted">the fit appears when runs have finished</span>'
    fit = analysis.fit
    if isinstance(fit, IsoFlopFit):
        return _exponents(
            fit.exponent_N, fit.intervals.get("exponent_N"), fit.status, len(fit.runs)
        )
    if not isinstance(fit, LawFit):
        return ""
    parts = [_exponents(fit.exponent_N, fit.exponent_N_interval, fit.status, fit.n_runs)]
    for name, value in fit.params.items():
        held = " (held)" if name in analysis.question.fixed else ""
        low, high = fit.intervals.get(name, (None, None))
        span = "" if held or low is None else f" ({low:.4g} to {high:.4g})"
        parts.append(f"{SYMBOLS.get(name, name)} = <b>{value:.4g}</b>{span}{held}")
    best = analysis.optimum
    if best is not None and analysis.question.fixed:
        ratio = fit.objective_value / best.objective_value if best.objective_value > 0 else 1.0
        parts.append(f"misfit <b>{ratio:.3g} ×</b> the optimum's")
    return " · ".join(parts)


def _exponents(a: float, interval: Any, status: str, n_runs: int) -> str:
    if not math.isfinite(a):
        return f"{escape(status.replace('_', ' '))} · {counted(n_runs, 'run')}"
    span = (
        f" ({interval[0]:.3f} to {interval[1]:.3f})"
        if interval and interval[1] > interval[0]
        else ""
    )
    tip = "how fast the best model size grows with compute: 0.5 means N and D grow alike"
    return (
        f'<span title="{tip}">N* ∝ C<sup>a</sup>, a = <b>{a:.3f}</b>{span}</span> · '
        f"{escape(status.replace('_', ' '))} · {counted(n_runs, 'run')}"
    )
