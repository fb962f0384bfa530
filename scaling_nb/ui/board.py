"""What all panels of one sweep share: its state, and the orders a person gives.

Every order returns at once and is carried out on the ticker's thread, so panels, two dashboards
and the sweep's workers never meet in the middle of a change. Panels get a frozen `Snapshot`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cost import CostEstimate
from ..errors import ScalingError
from ..events import Event, RunFailed, RunFinished, RunStarted, StepLogged
from ..plan import SweepPlan
from ..plots.style import count
from ..records import RunTable
from .analysis import Analysis, Question, analyse
from .choices import PlanChoice, Planned, Remedy, extended, guess, make_plan
from .ticker import Latest, shared_ticker

if TYPE_CHECKING:
    import os

    from ..executors import Executor
    from ..store import RunStore
    from ..sweep import Sweep, SweepStatus
    from ..training.recipe import Recipe

ALIVE = ("running", "paused")
_LOGGED = 200


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

    @property
    def alive(self) -> bool:
        """Whether a sweep trains or is paused."""
        return self.status is not None and self.status.state in ALIVE

    @property
    def sentence(self) -> str:
        """What happens, for somebody who does not see it."""
        parts = []
        if self.status is not None:
            s = self.status
            done = f"{s.n_done} of {s.n_runs} runs done"
            parts.append(done if s.state == "running" else f"{s.state}: {done}")
        elif self.plan is not None:
            parts.append(f"{len(self.plan.runs)} runs planned")
        if self.analysis is not None and self.analysis.answer is not None:
            a = self.analysis.answer
            parts.append(f"N* at {a.compute:.3g} is {count(a.n_params)}")
        return "; ".join(parts)


Listener = Callable[[Snapshot], object]
Steps = Callable[[str, Any, Any], object]


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
        self._inbox: deque[Event] = deque()
        self._table = runs
        self._excluded: dict[str, str] = dict(runs.exclusions) if runs is not None else {}
        self._undo: list[dict[str, str]] = []
        self._seen: dict[str, tuple[float, int]] = {}
        self._quick, self._thorough = Latest("quick fit"), Latest("fit")
        self._planner, self._prober = Latest("planning"), Latest("probe")
        self._disconnect: Callable[[], None] = lambda: None
        self._stop_beat: Callable[[], object] | None = None
        self._ending = ""
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

    # -- reading, from any thread --------------------------------------------------------------

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
                self._steps.remove(steps)  # type: ignore[arg-type]
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
            fitted = s.runs is None or not len(s.runs) or (s.analysis and s.analysis.final)
            if fitted and not s.planning:
                break
            time.sleep(0.02)
        return self._state

    def settle_here(self) -> Snapshot:
        """Return a snapshot whose fit is final, computed at once if need be; ticker's thread."""
        s = self._state
        stale = s.analysis is None or not s.analysis.final or s.analysis.runs is not s.runs
        if s.runs is not None and len(s.runs) and stale:
            self._put(analysis=analyse(s.runs, s.question, quick=False))
        return self._state

    # -- orders, from any thread ---------------------------------------------------------------

    def choose(self, **changes: Any) -> None:
        """Change what is to be planned: the fields of :class:`PlanChoice`."""
        self._order(lambda: self._choose(changes))

    def ask(self, **changes: Any) -> None:
        """Change what is asked of the runs: the fields of :class:`Question`."""
        self._order(lambda: self._ask(changes))

    def exclude(self, ids: Sequence[str], reason: str) -> None:
        """Leave runs out of the fit, for a stated reason."""
        self._order(lambda: self._mark({**self._excluded, **dict.fromkeys(ids, reason)}))

    def restore(self, ids: Sequence[str] | None = None) -> None:
        """Take runs back into the fit; all of them, if None."""
        gone = set(self._excluded if ids is None else ids)
        self._order(lambda: self._mark({k: v for k, v in self._excluded.items() if k not in gone}))

    def toggle(self, ids: Sequence[str], reason: str) -> None:
        """Exclude runs that count, and take those back that do not."""

        def act() -> None:
            out = {k: v for k, v in self._excluded.items() if k not in ids}
            new = [i for i in ids if i not in self._excluded]
            self._mark({**out, **dict.fromkeys(new, reason)})

        self._order(act)

    def undo(self) -> None:
        """Take the last exclusion or restoration back."""

        def act() -> None:
            if self._undo:
                self._excluded = self._undo.pop()
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
        self._disconnect()
        for worker in (self._quick, self._thorough, self._planner, self._prober):
            worker.close()
        if self._stop_beat is not None:
            self._stop_beat()
            self._stop_beat = None

    # -- everything below runs on the ticker's thread ------------------------------------------

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
        sweep = self._state.sweep
        if sweep is None:
            return
        finished = self._drain(sweep)
        if finished:
            self._runs_changed()
        self._put(status=sweep.status(), speeds=self._speeds(sweep))
        state = sweep.state
        if state not in ALIVE and self._ending != state:
            self._ending = state
            self._note({"finished": "all runs have ended"}.get(state, f"the sweep is {state}"))
            if self._stop_beat is not None:
                self._stop_beat()
                self._stop_beat = None
        self._show()

    def _drain(self, sweep: Sweep) -> bool:
        finished = False
        sizes = {run.run_id: f"{sweep.plan.size_name}={run.size:g}" for run in sweep.plan.runs}
        while self._inbox:
            match self._inbox.popleft():
                case RunStarted(spec=spec):
                    self._note(f"{sizes.get(spec.run_id, '')} at {spec.budget:.3g} FLOP started")
                case RunFinished(run=run):
                    finished = True
                    self._note(
                        f"{sizes.get(run.run_id, '')} at {run.budget:.3g} FLOP finished: held-out "
                        f"loss {run.loss:.4f}"
                    )
                case RunFailed(run=run):
                    self._note(
                        f"{sizes.get(run.run_id, '')} at {run.budget:.3g} FLOP {run.status}: "
                        f"{run.message}"
                    )
                case _:
                    pass
        return finished

    def _speeds(self, sweep: Sweep) -> dict[str, float]:
        """Return tokens per second of the runs in training, over the last seconds."""
        now, status = time.monotonic(), sweep.status()
        speeds = {}
        for run_id, state in status.runs.items():
            if state != "running":
                self._seen.pop(run_id, None)
                continue
            tokens = status.tokens_seen.get(run_id, 0)
            then, before = self._seen.setdefault(run_id, (now, tokens))
            if now - then > 0.5:
                speeds[run_id] = (tokens - before) / (now - then)
            if now - then > 5.0:
                self._seen[run_id] = (now, tokens)
        return speeds

    def _receive(self, event: Event) -> None:
        """Hear of what a worker does, on its thread: hand it on and return."""
        if isinstance(event, StepLogged):
            for steps in self._steps:
                steps(event.run_id, event.tokens, event.loss)
        else:
            self._inbox.append(event)

    def _adopt(self, sweep: Sweep) -> None:
        self._disconnect()
        self._disconnect = sweep.events.connect(self._receive)
        self._put(
            sweep=sweep,
            recipe=sweep.recipe,
            plan=sweep.plan,
            choice=self._state.choice or PlanChoice.of(sweep.plan),
            status=sweep.status(),
        )
        kept = {k: v for k, v in sweep.runs.exclusions.items() if k not in self._excluded}
        self._excluded = {**kept, **self._excluded}
        self._ending = ""
        self._runs_changed()
        if self._stop_beat is None:
            self._stop_beat = self._ticker.every(self._beat)  # type: ignore[assignment]

    def _runs_changed(self) -> None:
        sweep = self._state.sweep
        table = self._table if sweep is None else sweep.runs
        if table is None:
            return
        table = table.restore()
        known = set(table.columns["run_id"])
        for reason in dict.fromkeys(self._excluded.values()):
            ids = [k for k, v in self._excluded.items() if v == reason and k in known]
            table = table.exclude(ids, reason=reason) if ids else table
        self._put(runs=table, undo=len(self._undo))
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
        if excluded == self._excluded:
            return
        gone = [k for k in excluded if k not in self._excluded]
        back = [k for k in self._excluded if k not in excluded]
        self._undo.append(self._excluded)
        self._excluded = excluded
        self._keep_marks()
        for words, ids in (("excluded", gone), ("taken back", back)):
            if ids:
                why = f": {excluded[ids[0]]}" if ids is gone else ""
                self._note(f"{words} {', '.join(ids)}{why}")
        self._runs_changed()

    def _keep_marks(self) -> None:
        """Store exclusions with the runs, so that they come back after a restart."""
        sweep = self._state.sweep
        if sweep is None:
            return
        stored = sweep.store.runs()
        for run_id, run in stored.items():
            reason = self._excluded.get(run_id, "")
            if run.status == "finished" and run.excluded != reason:
                sweep.store.put_run(dataclasses.replace(run, excluded=reason))

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
        self._watch(sweep)

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
        self._watch(sweep)

    def _watch(self, sweep: Sweep) -> None:
        self._ending = ""
        if self._stop_beat is None:
            self._stop_beat = self._ticker.every(self._beat)  # type: ignore[assignment]

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

    def steps_seen(self) -> int:
        """Return tokens trained by all runs together."""
        status = self._state.status
        return int(np.sum(list(status.tokens_seen.values()))) if status else 0


_BOARDS: list[Board] = []


def board_of(source: Any, **options: Any) -> Board:
    """Return the board of a sweep, recipe, table or board; the one it has, if it has one."""
    if isinstance(source, Board):
        return source
    if isinstance(source, RunTable):
        return Board(runs=source, **options)
    if hasattr(source, "build_model"):
        return board_of_recipe(source, **options)
    for board in _BOARDS:
        if board.snapshot.sweep is source:
            return board
    board = Board(sweep=source, **options)
    _BOARDS.append(board)
    return board


def board_of_recipe(
    recipe: Recipe,
    *,
    plan: SweepPlan | None = None,
    store: str | os.PathLike[str] | RunStore = "runs.db",
    executor: str | Executor = "threads",
    question: Question | None = None,
) -> Board:
    """Return the board of a recipe: one that has a sweep of it, one from its store, or a new one."""
    path = Path(getattr(store, "path", store)).resolve()
    for board in _BOARDS:
        sweep = board.snapshot.sweep
        if sweep is not None and sweep.recipe.recipe_id == recipe.recipe_id:
            same_plan = plan is None or plan.plan_id == sweep.plan.plan_id
            if Path(sweep.store.path).resolve() == path and (same_plan or sweep.state in ALIVE):
                return board
    sweep = _stored(recipe, path, executor) if plan is None and path.exists() else None
    board = Board(
        recipe=recipe, plan=plan, sweep=sweep, store=store, executor=executor, question=question
    )
    _BOARDS.append(board)
    return board


def _stored(recipe: Recipe, path: Path, executor: str | Executor) -> Sweep | None:
    """Return the sweep that a store holds of this very recipe, or None."""
    from ..sweep import Sweep

    try:
        return Sweep.open(path, recipe, executor=executor)
    except ScalingError:
        return None
