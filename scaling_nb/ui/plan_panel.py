"""1 Plan: which runs, and what they will take."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from ..cost import CostEstimate, format_seconds
from ..errors import ScalingError
from ..flops import CONVENTIONS
from ..plan import SweepPlan
from ..plots.style import count, flop
from .board import Board
from .boards import board_of
from .choices import parse
from .comms import keep_listening
from .controls import Mirror, labelled, row, section, title, warning_html, words
from .panel import Panel
from .slider import Slider
from .snapshot import Snapshot

if TYPE_CHECKING:
    from ..training.recipe import Recipe

_DECADES = 3.0
"""A budget's slider reaches this many decades to both sides of where it is."""


class PlanPanel(Panel):
    """Budgets, sizes and seeds; the table of runs and its cost follow as one drags.

    Parameters
    ----------
    source : Recipe, Sweep or Board
    """

    def __init__(self, source: Recipe | Board | Any) -> None:
        self.board = board_of(source)
        choose = self.board.choose
        low = labelled(
            Slider(value=1e12, min=9, max=16, step=0.02, decades=True, digits=2, around=_DECADES),
            "budgets from",
            "Smallest compute budget C, FLOP: each budget gives one IsoFLOP curve",
            "215px",
        )
        high = labelled(
            Slider(value=1e13, min=9, max=16, step=0.02, decades=True, digits=2, around=_DECADES),
            "to",
            "Largest compute budget, FLOP; the wider the range, the surer the exponents",
            "155px",
        )
        number = labelled(
            w.BoundedIntText(value=4, min=1, max=20),
            "×",
            "How many budgets, spread in log C",
            "76px",
        )
        self._low = Mirror(low, lambda _: self._spread())
        self._high = Mirror(high, lambda _: self._spread())
        self._count = Mirror(number, lambda _: self._spread())
        typed = labelled(
            w.Text(placeholder="1e12, 3e12, 1e13", continuous_update=False),
            "or typed",
            "Budgets in FLOP, or a range such as 1e12 to 1e13 x 4",
            "205px",
        )
        self._typed = Mirror(typed, self._parse)
        self._n_sizes = Mirror(
            labelled(
                w.BoundedIntText(value=0, min=0, max=30),
                "sizes per budget (0: all)",
                "Model sizes on each IsoFLOP curve: at least 3 for a minimum, 6 for a good one",
                "210px",
            ),
            lambda v: choose(n_sizes=v or None),
        )
        self._seeds = Mirror(
            labelled(
                w.BoundedIntText(value=1, min=1, max=10), "seeds", "Repeats of each run", "100px"
            ),
            lambda v: choose(seeds=v),
        )
        self._convention = Mirror(
            labelled(
                w.Dropdown(options=[(c.replace("_", "-"), c) for c in CONVENTIONS]),
                "N counted as",
                "Which parameters N counts: papers differ, and exponents with them",
                "220px",
            ),
            lambda v: choose(convention=v),
        )
        self._schedule = Mirror(
            labelled(
                w.Dropdown(options=["wsd", "cosine", "constant"]),
                "schedule",
                "Learning rate over the run; wsd: constant, then a cooldown over the last fifth",
                "170px",
            ),
            lambda v: choose(schedule=v),
        )
        self._reuse = Mirror(
            labelled(
                w.Checkbox(indent=False),
                "share trunks",
                "Train one trunk a size and branch a cooldown at each budget: less compute",
                "130px",
            ),
            lambda v: choose(reuse="cooldown" if v else None),
        )
        self._target = Mirror(
            labelled(
                w.Text(placeholder="1e15", continuous_update=False),
                "target C",
                "The budget you want the answer for, FLOP",
                "150px",
            ),
            self._aim,
        )
        self._summary = words("planning …")
        self._problem = words()
        self._table = words()
        self._shown = w.Accordion([self._table], titles=("runs of the plan",))
        self._inputs = [
            m.control
            for m in (self._low, self._high, self._count, self._typed, self._n_sizes, self._seeds)
            + (self._convention, self._schedule, self._reuse)
        ]
        self.widget = section(
            row(title("1 PLAN"), low, high, number, typed),
            row(*(c for c in self._inputs[4:]), self._target.control),
            self._summary,
            self._problem,
            self._shown,
        )
        self._plan: SweepPlan | None = None
        self._typing = ""
        keep_listening(self.widget)
        self._detach = self.board.attach(self.update)

    def update(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        choice = snapshot.choice
        if choice is not None:
            self._low.show(choice.budgets[0])
            self._high.show(choice.budgets[-1])
            self._count.show(len(choice.budgets))
            self._n_sizes.show(choice.n_sizes or 0)
            self._seeds.show(choice.seeds)
            self._convention.show(choice.convention)
            self._schedule.show(choice.schedule)
            self._reuse.show(choice.reuse is not None)
            self._reuse.control.disabled = snapshot.alive or choice.schedule != "wsd"
        if snapshot.question.target is not None:
            self._target.show(flop(snapshot.question.target))
        for control in self._inputs:
            if control is not self._reuse.control:
                control.disabled = snapshot.alive
        self._summary.value = summary_html(snapshot)
        self._show_problems(snapshot)
        if snapshot.plan is not self._plan:
            self._plan = snapshot.plan
            self._table.value = table_html(snapshot.plan) if snapshot.plan else ""

    def _spread(self) -> None:
        low, high = self._low.control.value, self._high.control.value
        n = self._count.control.value
        low, high = float(f"{min(low, high):.2g}"), float(f"{max(low, high):.2g}")
        if n == 1 or low == high:
            self.board.choose(budgets=(low,))
            return
        step = math.log(high / low) / (n - 1)
        budgets = dict.fromkeys(float(f"{low * math.exp(step * k):.2g}") for k in range(n))
        self.board.choose(budgets=tuple(budgets))

    def _parse(self, text: str) -> None:
        if not text.strip():
            self.board.choose()
            return
        try:
            self.board.choose(budgets=parse(text))
        except ScalingError as error:
            self.board.unplan(str(error))

    def _aim(self, text: str) -> None:
        try:
            target = float(text)
        except ValueError:
            target = math.nan
        if target > 0 and math.isfinite(target):
            self._say("")
            self.board.ask(target=target)
        else:
            self._say(f"{text!r} is no positive number. Write FLOP, such as 1e15.")

    def _say(self, problem: str) -> None:
        """Show what is wrong with what was typed, until something else is typed."""
        self._typing = problem
        self._show_problems(self.board.snapshot)

    def _show_problems(self, snapshot: Snapshot) -> None:
        notes = [snapshot.plan_problem] if snapshot.plan_problem else [*snapshot.plan_notes]
        if self._typing:
            notes.insert(0, self._typing)
        said = "".join(warning_html(note) for note in notes)
        if self._problem.value != said:
            self._problem.value = said


def summary_html(snapshot: Snapshot) -> str:
    """Return a plan and its cost in one line."""
    plan = snapshot.plan
    if plan is None:
        return "planning …" if snapshot.planning else "no plan"
    cells = len({(run.size, run.budget) for run in plan.runs})
    parts = [
        f"<b>{len(plan.runs)} runs</b>" + (f" of {cells} cells" if cells < len(plan.runs) else ""),
        f"{escape(plan.size_name)} {plan.runs[0].size:g}–{max(r.size for r in plan.runs):g}",
        f"C = {', '.join(map(flop, plan.budgets))} FLOP",
        f"{flop(plan.trained_flops)} FLOP in all",
    ]
    if plan.skipped:
        why = "; ".join(
            f"{plan.size_name}={s.size:g}"
            + (f" at {s.budget:.2g}" if s.budget else "")
            + f": {s.reason}"
            for s in plan.skipped[:12]
        )
        parts.append(
            f'<span class="snb-tip" title="{escape(why)}">{len(plan.skipped)} cells left out</span>'
        )
    trained = snapshot.sweep is not None and snapshot.sweep.plan is plan
    parts.append(cost_text(snapshot.cost, measuring=not trained))
    return " · ".join(part for part in parts if part)


def cost_text(cost: CostEstimate | None, *, measuring: bool) -> str:
    """Return time, memory and energy, or that they are being measured."""
    if cost is None:
        return '<span class="snb-muted">measuring time …</span>' if measuring else ""
    low, high = cost.seconds_range
    memory = cost.peak_bytes / 1e9
    size = f"{memory:.1f} GB" if memory >= 1 else f"{1e3 * memory:.0f} MB"
    return (
        f"<b>{format_seconds(cost.seconds)}</b> ({format_seconds(low)} to {format_seconds(high)}) "
        f"with {cost.workers} workers · {size} · {energy_text(cost.kwh)}"
    )


def energy_text(kwh: float) -> str:
    """Return an energy in the unit that reads best."""
    if kwh >= 0.1:
        return f"{kwh:.2g} kWh"
    return f"{1e3 * kwh:.2g} Wh" if kwh >= 1e-4 else f"{1e6 * kwh:.2g} mWh"


def table_html(plan: SweepPlan) -> str:
    """Return the plan as sizes by budgets: tokens per parameter of each run."""
    sizes = sorted({(run.size, run.n_params) for run in plan.runs})
    heads = "".join(f'<th scope="col">{flop(c)}</th>' for c in plan.budgets)
    cells = {(run.size, run.budget): run for run in plan.runs}
    lines = []
    for size, n in sizes:
        row_cells = ""
        for budget in plan.budgets:
            run = cells.get((size, budget))
            tip = f"{run.n_steps} steps, {run.epochs:.2g} epochs" if run else "left out"
            shown = f"{count(run.n_tokens)} ({run.tokens_per_param:.3g})" if run else "–"
            row_cells += f'<td title="{tip}">{shown}</td>'
        lines.append(f'<tr><th scope="row">{size:g} · N {count(n)}</th>{row_cells}</tr>')
    return (
        '<div class="snb-scroll"><table><caption style="text-align:left">'
        f"{plan.unit} D ({plan.unit} per parameter) of each run, "
        f"{escape(plan.size_name)} by budget in FLOP</caption>"
        f"<tr><th></th>{heads}</tr>{''.join(lines)}</table></div>"
    )
