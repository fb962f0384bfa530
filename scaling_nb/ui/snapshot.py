"""What the panels show, at one moment: one frozen value that every panel gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..cost import CostEstimate
from ..plan import SweepPlan
from ..plots.style import count, flop
from ..records import TOKENS, RunTable
from .analysis import Analysis, Question
from .choices import PlanChoice

if TYPE_CHECKING:
    from ..sweep import Sweep, SweepStatus
    from ..training.recipe import Recipe

ALIVE = ("running", "paused")
"""States of a sweep that trains, or would go on at once."""
_DONE = ("finished", "diverged", "failed", "skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the event log."""

    clock: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """Everything a panel shows, at one moment.

    Attributes
    ----------
    recipe : Recipe or None
    choice : PlanChoice or None
        What is chosen; `plan` lags behind while it is computed.
    plan : SweepPlan or None
    plan_problem : str
        Why the choice is impossible.
    plan_notes : tuple of str
    cost : CostEstimate or None
    sweep : Sweep or None
    status : SweepStatus or None
    speeds : mapping of run_id to float, tokens per second
    runs : RunTable or None
        Finished runs, excluded ones with their reasons.
    question : Question
    analysis : Analysis or None
    undo : int
        Exclusions that can be taken back.
    log : tuple of Entry
    refusal : str
        Why the last order was not carried out; empty where it was.
    """

    recipe: Recipe | None = None
    choice: PlanChoice | None = None
    plan: SweepPlan | None = None
    plan_problem: str = ""
    plan_notes: tuple[str, ...] = ()
    planning: bool = False
    cost: CostEstimate | None = None
    sweep: Sweep | None = None
    status: SweepStatus | None = None
    speeds: Mapping[str, float] = field(default_factory=dict)
    runs: RunTable | None = None
    question: Question = field(default_factory=Question)
    analysis: Analysis | None = None
    undo: int = 0
    log: tuple[Entry, ...] = ()
    refusal: str = ""

    @property
    def unit(self) -> str:
        """What D counts, as far as that is known."""
        if self.sweep is not None:
            return self.sweep.plan.unit
        if self.recipe is not None:
            return self.recipe.unit
        return TOKENS if self.runs is None else self.runs.unit

    @property
    def alive(self) -> bool:
        """Whether a sweep trains or is paused."""
        return self.status is not None and self.status.state in ALIVE

    @property
    def fittable(self) -> bool:
        """Whether there are runs to speak of, excluded ones too."""
        return self.runs is not None and len(self.runs.columns["run_id"]) > 0

    @property
    def n_done(self) -> int:
        """Runs that need no more training; a cancelled one is trained when the sweep goes on."""
        return sum(s in _DONE for s in self.status.runs.values()) if self.status else 0

    @property
    def behind(self) -> bool:
        """Whether the analysis is of other runs than those that count now."""
        return self.analysis is not None and self.analysis.runs is not self.runs

    @property
    def fitted(self) -> bool:
        """Whether the analysis is final, and of these very runs and this question."""
        a = self.analysis
        return a is not None and a.final and a.runs is self.runs and a.question == self.question

    @property
    def sentence(self) -> str:
        """What happens, for somebody who does not see it."""
        parts = [f"Refused: {self.refusal}"] if self.refusal else []
        if self.status is not None:
            s = self.status
            done = f"{self.n_done} of {s.n_runs} runs done"
            parts.append(done if s.state == "running" else f"{s.state}: {done}")
        elif self.plan is not None:
            parts.append(f"{len(self.plan.runs)} runs planned")
        if self.analysis is not None and self.analysis.answer is not None:
            a, asked = self.analysis.answer, self.analysis.target
            parts.append(f"N* at {flop(asked)} is {count(a.n_params)}")
        return "; ".join(parts)
