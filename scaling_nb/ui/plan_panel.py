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
from ..plots.style import count
from .board import Board
from .boards import board_of
from .choices import parse
from .comms import keep_listening
from .controls import Mirror, labelled, row, section, title, warning_html, words
from .snapshot import Snapshot

if TYPE_CHECKING:
    from ..training.recipe import Recipe

_LARGEST = 26


class PlanPanel:
    """Budgets, sizes and seeds; the table of runs and its cost follow as one drags.

    Parameters
    ----------
    source : Recipe, Sweep or Board
    """

    def __init__(self, source: Recipe | Board | Any) -> None:
        self.board = board_of(source)
        choose = self.board.choose
        low = labelled(
            w.FloatLogSlider(value=1e12, min=6, max=_LARGEST, step=0.05, readout_format=".1e"),
            "budgets from",
            "Smallest compute budget C, FLOP: each budget gives one IsoFLOP curve",
            "330px",
        )
        high = labelled(
            w.FloatLogSlider(value=1e13, min=6, max=_LARGEST, step=0.05, readout_format=".1e"),
            "to",
            "Largest compute budget, FLOP; the wider the range, the surer the exponents",
            "290px",
        )
        number = labelled(
            w.BoundedIntText(value=4, min=1, max=20),
            "×",
            "How many budgets, spread in log C",
            "80px",
        )
        self._low = Mirror(low, lambda _: self._spread())
        self._high = Mirror(high, lambda _: self._spread())
        self._count = Mirror(number, lambda _: self._spread())
        typed = labelled(
            w.Text(placeholder="1e12, 3e12, 1e13", continuous_update=False),
            "or typed",
            "Budgets in FLOP, or a range such as 1e12 to 1e13 x 4",
            "250px",
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
            self._target.show(f"{snapshot.question.target:.4g}")
        for control in self._inputs:
            if control is not self._reuse.control:
                control.disabled = snapshot.alive
        self._summary.value = summary_html(snapshot)
        notes = [snapshot.plan_problem] if snapshot.plan_problem else snapshot.plan_notes
        self._problem.value = "".join(warning_html(note) for note in notes)
        if snapshot.plan is not self._plan:
            self._plan = snapshot.plan
            self._table.value = table_html(snapshot.plan) if snapshot.plan else ""

    def close(self) -> None:
        """Stop following the board."""
        self._detach()

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
            return
        try:
            self.board.choose(budgets=parse(text))
            self._problem.value = ""
        except ScalingError as error:
            self._problem.value = warning_html(str(error))

    def _aim(self, text: str) -> None:
        try:
            target = float(text)
        except ValueError:
            self._problem.value = warning_html(f"{text!r} is no number. Write FLOP, such as 1e15.")
            return
        if target > 0 and math.isfinite(target):
            self.board.ask(target=target)


def summary_html(snapshot: Snapshot) -> str:
    """Return a plan and its cost in one line."""
    plan = snapshot.plan
    if plan is None:
        return "planning …" if snapshot.planning else ""
    cells = len({(run.size, run.budget) for run in plan.runs})
    parts = [
        f"<b>{len(plan.runs)} runs</b>" + (f" of {cells} cells" if cells < len(plan.runs) else ""),
        f"{escape(plan.size_name)} {plan.runs[0].size:g}–{max(r.size for r in plan.runs):g}",
        f"C = {', '.join(f'{c:.3g}' for c in plan.budgets)} FLOP",
        f"{plan.trained_flops:.3g} FLOP in all",
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
    return " · ".join([*parts, cost_text(snapshot.cost, alive=snapshot.alive)])


def cost_text(cost: CostEstimate | None, *, alive: bool) -> str:
    """Return time, memory and energy, or that they are being measured."""
    if cost is None:
        return "" if alive else '<span class="snb-muted">measuring time …</span>'
    low, high = cost.seconds_range
    memory = cost.peak_bytes / 1e9
    size = f"{memory:.1f} GB" if memory >= 1 else f"{1e3 * memory:.0f} MB"
    return (
        f"<b>{format_seconds(cost.seconds)}</b> ({format_seconds(low)} to {format_seconds(high)}) "
        f"with {cost.workers} workers · {size} · {cost.kwh:.2g} kWh"
    )


def table_html(plan: SweepPlan) -> str:
    """Return the plan as sizes by budgets: tokens per parameter of each run."""
    sizes = sorted({(run.size, run.n_params) for run in plan.runs})
    heads = "".join(f'<th scope="col">{c:.3g}</th>' for c in plan.budgets)
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
        '<div class="snb-scroll"><table><caption style="text-align:left">tokens D (tokens per '
        f"parameter) of each run, {escape(plan.size_name)} by budget in FLOP</caption>"
        f"<tr><th></th>{heads}</tr>{''.join(lines)}</table></div>"
    )
