"""What all panels of one sweep share: its state, and the orders a person gives.

Every order returns at once and is carried out on the ticker's thread, so panels, two dashboards
and the sweep's workers never meet in the middle of a change. Panels get a frozen `Snapshot`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ScalingError
from ..plan import SweepPlan
from ..records import RunTable
from .analysis import Analysis, Question, analyse
from .choices import PlanChoice, Planned, Remedy, extended, guess, make_plan
from .exclusions import Exclusions
from .feed import Steps, SweepFeed
from .snapshot import ALIVE, Entry, Snapshot
from .ticker import Latest, shared_ticker

if TYPE_CHECKING:
    import os

    from ..executors import Executor
    from ..store import RunStore
    from ..sweep import Sweep
    from ..training.recipe import Recipe

_LOGGED = 200


Listener = Callable[[Snapshot], object]


class Board:
    """The shared state behind one or more panels.

    Parameters
    ----------
    recipe, plan, sweep, runs
        What there is; a sweep brings its recipe and plan.
    store : path-like or RunStore
        Where a new sweep keeps its runs.
    executor : str or Executor
    question : Question
    """

    def __init__(
        self,
        *,
        recipe: Recipe | None = None,
        plan: SweepPlan | None = None,
        sweep: Sweep | None = None,
        runs: RunTable | None = None,
        store: str | os.PathLike[str] | RunStore = "runs.db",
        executor: str | Executor = "threads",
        question: Question | None = None,
    ) -> None:
        self.store, self.executor = store, executor
        self._ticker = shared_ticker()
        self._state = Snapshot(recipe=recipe, plan=plan, question=question or Question())
        self._listeners: list[Listener] = []
        self._steps: list[Steps] = []
        self._table = runs
        self._out = Exclusions({} if runs is None else runs.exclusions)
        self._quick, self._thorough = Latest("quick fit"), Latest("fit")
        self._planner, self._prober = Latest("planning"), Latest("probe")
        self._feed: SweepFeed | None = None
        self._stop_beat: Callable[[], object] | None = None
        self._last = ""
        if plan is not None:
            self._put(choice=PlanChoice.of(plan))
        if sweep is not None:
            self._adopt(sweep)
        elif runs is not None:
            self._runs_changed()
        elif recipe is not None and plan is None:
            self._put(planning=True)
            self._planner.submit(self._guess)
        elif recipe is not None:
            self._probe()

    @property
    def snapshot(self) -> Snapshot:
        """The newest state."""
        return self._state

    def attach(self, listener: Listener, steps: Steps | None = None) -> Callable[[], None]:
        """Call `listener` with every new snapshot, and now; returns a function that ends it.

        `steps(run_id, tokens, loss)` is called on worker threads.
        """

        def begin() -> None:
            self._listeners.append(listener)
            listener(self._state)

        if steps is not None:
            self._steps.append(steps)
        self._ticker.call(begin)

        def detach() -> None:
            if steps in self._steps:
                self._steps.remove(steps)
            self._ticker.call(
                lambda: self._listeners.remove(listener) if listener in self._listeners else None
            )

        return detach

    def settle(self, timeout: float = 60.0) -> Snapshot:
        """Wait until what was asked so far is planned, fitted and shown."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._ticker.settle()
            s = self._state
            if (s.fitted or s.runs is None or not len(s.runs)) and not s.planning:
                break
            time.sleep(0.02)
        return self._state

    def settle_here(self) -> Snapshot:
        """Return a snapshot whose fit is final, computed at once if need be; ticker's thread."""
        s = self._state
        if s.runs is not None and len(s.runs) and not s.fitted:
            self._put(analysis=analyse(s.runs, s.question, quick=False))
        return self._state

    def choose(self, **changes: Any) -> None:
        """Change what is to be planned: the fields of :class:`PlanChoice`."""
        self._order(lambda: self._choose(changes))

    def ask(self, **changes: Any) -> None:
        """Change what is asked of the runs: the fields of :class:`Question`."""
        self._order(lambda: self._ask(changes))

    def exclude(self, ids: Sequence[str], reason: str) -> None:
        """Leave runs out of the fit, for a stated reason."""
        self._order(lambda: self._mark({**self._out.reasons, **dict.fromkeys(ids, reason)}))

    def restore(self, ids: Sequence[str] | None = None) -> None:
        """Take runs back into the fit; all of them, if None."""

        def act() -> None:
            gone = set(self._out.reasons if ids is None else ids)
            self._mark({k: v for k, v in self._out.reasons.items() if k not in gone})

        self._order(act)

    def toggle(self, ids: Sequence[str], reason: str) -> None:
        """Exclude runs that count, and take those back that do not."""
        self._order(lambda: self._mark(self._out.toggled(ids, reason)))

    def undo(self) -> None:
        """Take the last exclusion or restoration back."""

        def act() -> None:
            if self._out.undo():
                self._keep_marks()
                self._note("undone")
                self._runs_changed()

        self._order(act)

    def start(self) -> None:
        """Start the plan, or go on with it."""
        self._order(self._start)

    def pause(self) -> None:
        """Hold the sweep between two steps, or let it go on."""

        def act() -> None:
            sweep = self._state.sweep
            if sweep is not None:
                (sweep.resume if sweep.state == "paused" else sweep.pause)()
                self._note("paused" if sweep.state == "paused" else "going on")

        self._order(act)

    def stop(self) -> None:
        """End the sweep after the current step; finished runs stand."""

        def act() -> None:
            if self._state.sweep is not None:
                self._state.sweep.cancel()
                self._note("stopping after the current step; finished runs stand")

        self._order(act)

    def retry(self, ids: Sequence[str]) -> None:
        """Train runs again that failed, diverged or were left out."""
        self._order(lambda: self._each(ids, "retry"))

    def skip(self, ids: Sequence[str]) -> None:
        """Leave runs out that have not ended."""
        self._order(lambda: self._each(ids, "skip"))

    def heal(self, remedy: Remedy) -> None:
        """Add the runs of a remedy to the plan, and train them."""
        self._order(lambda: self._heal(remedy))

    def note(self, text: str) -> None:
        """Write a line into the event log."""
        self._order(lambda: self._note(text))

    def close(self) -> None:
        """Let go of the sweep, which trains on."""
        if self._feed is not None:
            self._feed.close()
        for worker in (self._quick, self._thorough, self._planner, self._prober):
            worker.close()
        if self._stop_beat is not None:
            self._stop_beat()
            self._stop_beat = None

    def _order(self, act: Callable[[], object]) -> None:
        def carry_out() -> None:
            try:
                act()
            except ScalingError as error:
                self._note(str(error))
            self._show()

        self._ticker.call(carry_out)

    def _put(self, **changes: Any) -> None:
        self._state = dataclasses.replace(self._state, **changes)

    def _note(self, text: str) -> None:
        entry = Entry(clock=time.strftime("%H:%M:%S"), text=text)
        self._put(log=(*self._state.log[-_LOGGED:], entry))

    def _show(self) -> None:
        sweep = self._state.sweep
        if sweep is not None:
            self._put(status=sweep.status())
        for listener in list(self._listeners):
            listener(self._state)

    def _beat(self) -> None:
        if self._feed is None:
            return
        sweep = self._feed.sweep
        said, finished = self._feed.read()
        state = sweep.state
        if state == self._last and state not in ALIVE and not said:
            # Nothing trains; but somebody may start the sweep in Python at any time.
            return
        for sentence in said:
            self._note(sentence)
        if finished:
            self._runs_changed()
        self._put(status=sweep.status(), speeds=self._feed.speeds())
        if state != self._last and state not in (*ALIVE, "new"):
            self._note({"finished": "all runs have ended"}.get(state, f"the sweep is {state}"))
        self._last = state
        self._show()

    def _adopt(self, sweep: Sweep) -> None:
        if self._feed is not None:
            self._feed.close()
        self._feed = SweepFeed(sweep, self._steps)
        self._put(
            sweep=sweep,
            recipe=sweep.recipe,
            plan=sweep.plan,
            choice=self._state.choice or PlanChoice.of(sweep.plan),
            status=sweep.status(),
        )
        self._out.adopt(sweep.runs.exclusions)
        self._runs_changed()
        self._watch()

    def _runs_changed(self) -> None:
        sweep = self._state.sweep
        table = self._table if sweep is None else sweep.runs
        if table is None:
            return
        self._put(runs=self._out.applied(table), undo=self._out.depth)
        self._refit()

    def _refit(self) -> None:
        runs, question = self._state.runs, self._state.question
        if runs is None or not len(runs):
            self._put(analysis=None)
            return

        def fit(quick: bool) -> None:
            done = analyse(runs, question, quick=quick)
            self._ticker.call(lambda: self._analysed(done))

        self._quick.submit(lambda: fit(True))
        self._thorough.submit(lambda: fit(False), after=0.4)

    def _analysed(self, done: Analysis) -> None:
        current = self._state
        if done.runs is not current.runs or done.question != current.question:
            return
        if current.analysis is not None and current.analysis.runs is done.runs:
            same = current.analysis.question == done.question
            if same and current.analysis.final and not done.final:
                return
        self._put(analysis=done)
        self._show()

    def _ask(self, changes: Mapping[str, Any]) -> None:
        question = dataclasses.replace(self._state.question, **changes)
        if question != self._state.question:
            self._put(question=question)
            self._refit()

    def _mark(self, excluded: dict[str, str]) -> None:
        said = self._out.change(excluded)
        if said:
            self._note(said)
            self._keep_marks()
            self._runs_changed()

    def _keep_marks(self) -> None:
        if self._state.sweep is not None:
            self._out.keep(self._state.sweep.store)

    def _each(self, ids: Sequence[str], verb: str) -> None:
        sweep = self._state.sweep
        if sweep is None:
            return
        for run_id in ids:
            try:
                getattr(sweep, verb)(run_id)
            except ScalingError as error:
                self._note(str(error))
        self._put(plan=sweep.plan)
        self._watch()

    def _start(self) -> None:
        from ..sweep import Sweep

        state = self._state
        if state.recipe is None or state.plan is None:
            self._note(state.plan_problem or "the plan is not made yet")
            return
        sweep = state.sweep
        if sweep is None or sweep.plan.plan_id != state.plan.plan_id:
            if sweep is not None and sweep.state in ALIVE:
                self._note("stop the running sweep before another plan is started")
                return
            store = self.store if sweep is None else sweep.store
            sweep = Sweep(state.recipe, state.plan, store=store, executor=self.executor)
            self._adopt(sweep)
        sweep.start()
        self._note(f"training {len(state.plan.runs)} runs")
        self._watch()

    def _watch(self) -> None:
        self._last = ""
        if self._stop_beat is None:
            self._stop_beat = self._ticker.every(self._beat)

    def _heal(self, remedy: Remedy) -> None:
        state = self._state
        if state.plan is None or state.recipe is None:
            return
        if state.alive:
            self._note("wait until the sweep has ended, or stop it, before runs are added")
            return
        plan = extended(state.plan, state.recipe, remedy)
        self._note(
            f"{len(plan.runs) - len(state.plan.runs)} runs added at {remedy.budget:.3g} FLOP"
        )
        self._put(plan=plan)
        self._start()

    def _guess(self) -> None:
        recipe = self._state.recipe
        assert recipe is not None
        choice = guess(recipe)
        self._order(lambda: self._choose(dataclasses.asdict(choice)))

    def _choose(self, changes: Mapping[str, Any]) -> None:
        state = self._state
        recipe = state.recipe
        if recipe is None:
            return
        base = state.choice or PlanChoice(budgets=(1e12,))
        choice = dataclasses.replace(base, **changes)
        if choice.schedule != "wsd" and choice.reuse:
            choice = dataclasses.replace(choice, reuse=None)
        if choice == state.choice:
            return
        self._put(choice=choice, planning=True, plan_problem="")
        self._planner.submit(lambda: self._plan(recipe, choice), after=0.05)

    def _plan(self, recipe: Recipe, choice: PlanChoice) -> None:
        planned, problem = None, ""
        try:
            planned = make_plan(recipe, choice)
        except (ScalingError, ValueError) as error:
            problem = str(error)
        self._order(lambda: self._planned(choice, planned, problem))

    def _planned(self, choice: PlanChoice, planned: Planned | None, problem: str) -> None:
        if choice != self._state.choice:
            return
        self._put(planning=False, plan_problem=problem)
        if planned is not None:
            self._put(plan=planned.plan, recipe=planned.recipe, plan_notes=planned.notes, cost=None)
            self._probe()

    def _probe(self) -> None:
        plan = self._state.plan
        if plan is None or plan.recipe is None or self._state.alive:
            return

        def measure() -> None:
            with contextlib.suppress(ScalingError):
                cost = plan.estimate()
                self._order(lambda: self._put(cost=cost) if self._state.plan is plan else None)

        self._prober.submit(measure, after=0.6)
