"""From what a person chooses to a plan and its cost, computed while they go on."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ScalingError
from .choices import PlanChoice, Planned, guess, make_plan
from .desk import Desk
from .ticker import Latest

if TYPE_CHECKING:
    from ..cost import CostEstimate
    from ..training.recipe import Recipe


class Planning:
    """Keeps the plan in step with the choice; of several choices only the newest is planned."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._planner, self._prober = Latest("planning"), Latest("probe")

    def begin(self) -> None:
        """Guess a plan where there is none; measure the one there is."""
        state = self._desk.state
        if state.recipe is None or state.sweep is not None:
            return
        if state.plan is None:
            self._desk.put(planning=True)
            self._planner.submit(self._guess)
        else:
            self.probe()

    def close(self) -> None:
        """Forget what has not begun."""
        self._planner.close()
        self._prober.close()

    def choose(self, changes: Mapping[str, Any]) -> None:
        """Change the choice and plan it in the background."""
        desk = self._desk
        recipe = desk.state.recipe
        if recipe is None:
            return
        base = desk.state.choice or PlanChoice(budgets=(1e12,))
        choice = dataclasses.replace(base, **changes)
        if choice.schedule != "wsd" and choice.reuse:
            choice = dataclasses.replace(choice, reuse=None)
        if choice == desk.state.choice and not desk.state.plan_problem:
            return
        desk.put(choice=choice, planning=True, plan_problem="")
        self._planner.submit(lambda: self._plan(recipe, choice), after=0.05)

    def unplan(self, problem: str) -> None:
        """Leave no plan, for what was typed cannot be read: what starts must be what is shown."""
        self._desk.put(planning=False, plan=None, plan_problem=problem, plan_notes=(), cost=None)

    def probe(self) -> None:
        """Measure what the plan takes, unless something trains."""
        desk = self._desk
        plan = desk.state.plan
        if plan is None or plan.recipe is None or desk.state.alive:
            return

        def measure() -> None:
            if desk.state.alive:
                return
            with contextlib.suppress(ScalingError):
                cost = plan.estimate()
                desk.order(lambda: measured(cost), asked=False)

        def measured(cost: CostEstimate) -> None:
            # What was timed beside runs that train is no measure of them.
            if desk.state.plan is plan and not desk.state.alive:
                desk.put(cost=cost)

        self._prober.submit(measure, after=0.6)

    def _guess(self) -> None:
        recipe = self._desk.state.recipe
        assert recipe is not None
        choice, problem = None, ""
        try:
            choice = guess(recipe)
        except Exception as error:
            problem = f"no plan can be guessed: {error}"

        def act() -> None:
            if choice is None:
                self._desk.put(planning=False, plan_problem=problem)
            else:
                fields = dataclasses.fields(choice)
                self.choose({f.name: getattr(choice, f.name) for f in fields})

        self._desk.order(act, asked=False)

    def _plan(self, recipe: Recipe, choice: PlanChoice) -> None:
        planned, problem = None, ""
        try:
            planned = make_plan(recipe, choice)
        except (ScalingError, ValueError) as error:
            problem = str(error)
        except Exception as error:
            problem = f"this cannot be planned: {type(error).__name__}: {error}"
        self._desk.order(lambda: self._planned(choice, planned, problem), asked=False)

    def _planned(self, choice: PlanChoice, planned: Planned | None, problem: str) -> None:
        desk = self._desk
        if choice != desk.state.choice or not desk.state.planning:
            return
        # An impossible choice leaves no plan: what is started must be what is shown.
        desk.put(planning=False, plan_problem=problem, plan=None, plan_notes=(), cost=None)
        if planned is not None:
            desk.put(plan=planned.plan, recipe=planned.recipe, plan_notes=planned.notes)
            self.probe()
