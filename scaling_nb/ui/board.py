"""What all panels of one sweep share: its state, and the orders a person gives.

Every order returns at once and is carried out on the ticker's thread, so panels, two dashboards
and the sweep's workers never meet in the middle of a change. Panels get a frozen `Snapshot`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import PlanError, ScalingError, SweepError
from ..plan import SweepPlan
from ..records import RunTable
from .analysis import Question
from .choices import PlanChoice, Remedy, extended
from .desk import Desk, Listener
from .feed import Steps, SweepFeed
from .fitting import Fitting
from .planning import Planning
from .snapshot import ALIVE, Snapshot

if TYPE_CHECKING:
    import os

    from ..executors import Executor
    from ..store import RunStore
    from ..sweep import Sweep
    from ..training.recipe import Recipe


class Board:
    """The shared state behind one or more panels.

    Parameters
    ----------
    recipe, plan, sweep, runs
        What there is; a sweep brings its recipe and plan.
    store : path-like or RunStore
        Where a new sweep keeps its runs.
    executor : str or Executor, optional
        None: that of the sweep that is shown, where there is one, else ``"threads"``.
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
        executor: str | Executor | None = None,
        question: Question | None = None,
    ) -> None:
        self.store, self.executor = store, executor
        choice = None if plan is None else PlanChoice.of(plan)
        self._desk = Desk(
            Snapshot(recipe=recipe, plan=plan, choice=choice, question=question or Question())
        )
        self._fitting = Fitting(self._desk, runs)
        self._planning = Planning(self._desk)
        self._steps: list[Steps] = []
        self._feed: SweepFeed | None = None
        self._stop_beat: Callable[[], object] | None = None
        self._last = ""
        if sweep is not None:
            self._adopt(sweep)
            self._fitting.recall_question()
        self._fitting.runs_changed()
        self._planning.begin()

    @property
    def snapshot(self) -> Snapshot:
        """The newest state."""
        return self._desk.state

    def attach(self, listener: Listener, steps: Steps | None = None) -> Callable[[], None]:
        """Call `listener` with every new snapshot, and now; returns a function that ends it.

        `steps` hears of training steps on worker threads.
        """
        end = self._desk.attach(listener)
        if steps is not None:
            self._steps.append(steps)

        def detach() -> None:
            if steps in self._steps:
                self._steps.remove(steps)
            end()

        return detach

    def settle(self, timeout: float = 60.0) -> Snapshot:
        """Wait until what was asked so far is planned, fitted and shown."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._desk.ticker.settle()
            s = self._desk.state
            if (s.fitted or not s.fittable) and not s.planning:
                break
            time.sleep(0.02)
        return self._desk.state

    def settle_here(self) -> Snapshot:
        """Return a snapshot whose fit is final, computed at once if need be; ticker's thread."""
        self._fitting.at_once()
        return self._desk.state

    def choose(self, **changes: Any) -> None:
        """Change what is to be planned: the fields of :class:`PlanChoice`."""
        self._desk.order(lambda: self._planning.choose(changes))

    def unplan(self, problem: str) -> None:
        """Say why what was typed cannot be planned; there is no plan until it can be."""
        self._desk.order(lambda: self._planning.unplan(problem))

    def ask(self, **changes: Any) -> None:
        """Change what is asked of the runs: the fields of :class:`Question`."""
        self._desk.order(lambda: self._fitting.ask(changes))

    def hold(self, *names: str) -> None:
        """Hold parameters of the law at their optimum, with Approach 3; no name frees all."""
        self._desk.order(lambda: self._fitting.hold(names))

    def refuse(self, text: str) -> None:
        """Say beside the buttons why something cannot be done."""
        self._desk.order(lambda: self._desk.refuse(text))

    def exclude(self, ids: Sequence[str], reason: str) -> None:
        """Leave runs out of the fit, for a stated reason."""
        out = self._fitting.out
        self._mark(lambda: {**out.reasons, **dict.fromkeys(ids, reason)})

    def restore(self, ids: Sequence[str] | None = None) -> None:
        """Take runs back into the fit; all of them, if None."""
        out = self._fitting.out

        def kept() -> dict[str, str]:
            gone = set(out.reasons if ids is None else ids)
            return {k: v for k, v in out.reasons.items() if k not in gone}

        self._mark(kept)

    def toggle(self, ids: Sequence[str], reason: str) -> None:
        """Exclude runs that count, and take those back that do not."""
        self._mark(lambda: self._fitting.out.toggled(ids, reason))

    def surround(self, ids: Sequence[str], reason: str) -> None:
        """Exclude the runs of a lasso; take them back where all of them are excluded."""
        self._mark(lambda: self._fitting.out.surrounded(ids, reason))

    def undo(self) -> None:
        """Take the last exclusion or restoration back."""
        self._desk.order(self._fitting.undo)

    def start(self) -> None:
        """Start the plan, or go on with it."""
        self._desk.order(self._start)

    def pause(self) -> None:
        """Hold the sweep between two steps, or let it go on."""

        def act() -> None:
            sweep = self._desk.state.sweep
            if sweep is not None:
                (sweep.resume if sweep.state == "paused" else sweep.pause)()
                self._desk.note("paused" if sweep.state == "paused" else "going on")

        self._desk.order(act)

    def stop(self) -> None:
        """End the sweep after the current step; finished runs stand."""

        def act() -> None:
            if self._desk.state.sweep is not None:
                self._desk.state.sweep.cancel()
                self._desk.note("stopping after the current step; finished runs stand")

        self._desk.order(act)

    def retry(self, ids: Sequence[str]) -> None:
        """Train runs again that failed, diverged or were left out."""
        self._desk.order(lambda: self._each(ids, "retry"))

    def skip(self, ids: Sequence[str]) -> None:
        """Leave runs out that have not ended."""
        self._desk.order(lambda: self._each(ids, "skip"))

    def heal(self, remedy: Remedy) -> None:
        """Add the runs of a remedy to the sweep's plan, and train them."""
        self._desk.order(lambda: self._heal(remedy))

    def note(self, text: str) -> None:
        """Write a line into the event log."""
        self._desk.order(lambda: self._desk.note(text), asked=False)

    def close(self) -> None:
        """Let go of the sweep, which trains on."""
        if self._feed is not None:
            self._feed.close()
        self._fitting.close()
        self._planning.close()
        if self._stop_beat is not None:
            self._stop_beat()
            self._stop_beat = None

    def _mark(self, reasons: Callable[[], dict[str, str]]) -> None:
        self._desk.order(lambda: self._fitting.mark(reasons()))

    def _beat(self) -> None:
        if self._feed is None:
            return
        desk, sweep = self._desk, self._feed.sweep
        said, finished = self._feed.read()
        state = sweep.state
        if state == self._last and state not in ALIVE and not said:
            # Nothing trains; but somebody may start the sweep in Python at any time.
            return
        for sentence in said:
            desk.note(sentence)
        if finished:
            self._fitting.runs_changed()
        desk.put(status=sweep.status(), speeds=self._feed.speeds())
        if state != self._last and state not in (*ALIVE, "new"):
            desk.note({"finished": "all runs have ended"}.get(state, f"the sweep is {state}"))
        self._last = state
        desk.show()

    def _adopt(self, sweep: Sweep) -> None:
        if self._feed is not None:
            self._feed.close()
        self._feed = SweepFeed(sweep, self._steps)
        self._desk.put(
            sweep=sweep,
            recipe=sweep.recipe,
            plan=sweep.plan,
            choice=self._desk.state.choice or PlanChoice.of(sweep.plan),
            status=sweep.status(),
        )
        self._fitting.out.adopt(sweep.runs.exclusions)
        self._watch()

    def _each(self, ids: Sequence[str], verb: str) -> None:
        sweep = self._desk.state.sweep
        if sweep is None:
            raise SweepError(f"nothing is in training, so there is nothing to {verb}. Press start.")
        refused = []
        for run_id in ids:
            try:
                getattr(sweep, verb)(run_id)
            except ScalingError as error:
                refused.append(str(error))
        self._desk.put(plan=sweep.plan)
        self._watch()
        if refused:
            raise SweepError(" ".join(refused))

    def _start(self) -> None:
        from ..sweep import Sweep

        state = self._desk.state
        if state.planning:
            raise PlanError("the plan is still being made. Wait a moment, then start.")
        if state.recipe is None or state.plan is None:
            raise PlanError(state.plan_problem or "there is no plan yet. Choose budgets first.")
        sweep = state.sweep
        if sweep is None or sweep.plan.plan_id != state.plan.plan_id:
            if sweep is not None and sweep.state in ALIVE:
                raise SweepError("a sweep is running. Stop it before another plan is started.")
            store = self.store if sweep is None else sweep.store
            executor = self.executor or ("threads" if sweep is None else sweep.executor)
            sweep = Sweep(state.recipe, state.plan, store=store, executor=executor)
            self._adopt(sweep)
            self._fitting.runs_changed()
        sweep.start()
        self._fitting.keep_question()
        self._desk.note(f"training {len(state.plan.runs)} runs")
        self._watch()

    def _watch(self) -> None:
        self._last = ""
        if self._stop_beat is None:
            self._stop_beat = self._desk.ticker.every(self._beat)

    def _heal(self, remedy: Remedy) -> None:
        state = self._desk.state
        if state.sweep is None:
            raise SweepError("these runs belong to no sweep. Add them to a plan, and start it.")
        if state.alive:
            raise SweepError(
                "runs cannot be added while a sweep trains. Wait until it has ended, or stop it."
            )
        sweep = state.sweep
        plan = extended(sweep.plan, sweep.recipe, remedy)
        n = len(plan.runs) - len(sweep.plan.runs)
        self._desk.note(f"{n} runs added at {remedy.budget:.3g} FLOP")
        self._desk.put(plan=plan, recipe=sweep.recipe, plan_problem="", planning=False)
        self._start()
