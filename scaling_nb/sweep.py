"""The sweep: the one mutable object. It trains a plan's runs in the background."""

from __future__ import annotations

import atexit
import dataclasses
import math
import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from .cost import format_seconds
from .errors import SweepError
from .events import Event, RunFailed, RunFinished, RunStarted, Signal, StepLogged
from .executors import Executor, Job, JobQueue, make_executor
from .plan import SweepPlan
from .progress import StepClock, remaining_steps
from .records import Run, RunTable, Status
from .store import RunStore
from .training.recipe import Recipe
from .training.trunk import Stopped

SweepState = Literal["new", "running", "paused", "finished", "cancelled", "failed"]

ENDED: frozenset[str] = frozenset({"finished", "diverged"})
"""States of runs that are not trained again when a sweep goes on: they would end the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepStatus:
    """A sweep at one moment.

    Attributes
    ----------
    state : str
        ``new``, ``running``, ``paused``, ``finished``, ``cancelled`` or ``failed``.
    runs : mapping of run_id to status
    n_runs, n_done : int
        Planned runs, and those that ended in one way or another.
    elapsed : float, seconds
        Since the start.
    eta : float, seconds
        Until the end; NaN before there is anything to judge by.
    loss : mapping of run_id to float, nats per token
        Newest training loss.
    tokens_seen : mapping of run_id to int, tokens
    """

    state: SweepState
    runs: Mapping[str, Status] = field(repr=False)
    n_runs: int
    n_done: int
    elapsed: float
    eta: float
    loss: Mapping[str, float] = field(repr=False)
    tokens_seen: Mapping[str, int] = field(repr=False)

    def eta_text(self) -> str:
        """Return ``ETA 45 s``, or nothing before there is anything to judge by."""
        known = math.isfinite(self.eta) and self.state in ("running", "paused")
        return f"ETA {format_seconds(self.eta)}" if known else ""

    def __str__(self) -> str:
        done = f"{self.state}: {self.n_done}/{self.n_runs} runs"
        return f"{done}, {self.eta_text()}" if self.eta_text() else done


class Sweep:
    """Trains the runs of a plan in the background and keeps what comes of them.

    Thread-safe; every property returns an immutable snapshot. Runs and curves go to the store as
    they happen. A store that already holds some of the plan's runs is continued: finished runs
    stand, and the end is the same as that of an undisturbed sweep.

    Parameters
    ----------
    recipe : Recipe
    plan : SweepPlan
        Made from the same recipe.
    store : path-like or RunStore
    executor : {"threads", "inline"} or Executor

    Attributes
    ----------
    events : Signal of Event
        Observers are called on worker threads: enqueue and return.

    Examples
    --------
    >>> sweep = Sweep(recipe, plan, store="runs.db").start()    # doctest: +SKIP
    >>> sweep.wait()                                            # doctest: +SKIP
    >>> sweep.runs.to_frame()                                   # doctest: +SKIP
    """

    def __init__(
        self,
        recipe: Recipe,
        plan: SweepPlan,
        *,
        store: str | os.PathLike[str] | RunStore = "runs.db",
        executor: str | Executor = "threads",
    ) -> None:
        if plan.recipe_id != recipe.recipe_id:
            raise SweepError(
                "the plan was made from another recipe: their content differs. Plan anew with "
                "plan_sweep(recipe, …)."
            )
        self.recipe, self.plan = recipe, plan
        self.executor = make_executor(executor)
        self.events: Signal[Event] = Signal()
        self.store = store if isinstance(store, RunStore) else RunStore(store)
        self._lock = threading.Lock()
        self._go = threading.Event()
        self._stop = threading.Event()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._state: SweepState = "new"
        self._error: BaseException | None = None
        self._began = self._took = 0.0
        self._clock = StepClock()
        self._loss: dict[str, float] = {}
        self._seen: dict[str, int] = {}
        self._tracebacks: dict[str, str] = {}
        self._specs = {spec.run_id: spec for spec in plan.runs}
        self._results = {k: run for k, run in self.store.runs().items() if k in self._specs}
        self._statuses: dict[str, Status] = dict.fromkeys(self._specs, "queued")
        for run_id, run in self._results.items():
            self._statuses[run_id] = run.status  # type: ignore[assignment]
            if run.status == "finished":
                self._seen[run_id] = int(run.D)
        if self._specs and all(s in ENDED for s in self._statuses.values()):
            self._state = "finished"

    @classmethod
    def open(
        cls,
        store: str | os.PathLike[str],
        recipe: Recipe,
        *,
        executor: str | Executor = "threads",
    ) -> Self:
        """Re-attach to the newest sweep in a store, after a crash or a restarted kernel.

        Raises
        ------
        SweepError
            The store holds no sweep, or the recipe differs from the stored one: says in what.
        """
        opened = RunStore(store)
        stored = opened.load_sweep()
        if stored is None:
            opened.close()
            raise SweepError(f"{store} holds no sweep yet. Start one with Sweep(recipe, plan).")
        parts = recipe.parts()
        different = [key for key in parts if parts[key] != stored.recipe_parts.get(key)]
        if different:
            opened.close()
            raise SweepError(
                f"the recipe differs from the one of {store} in {', '.join(different)}. Use the "
                "recipe that the sweep was started with, or a new store."
            )
        plan = dataclasses.replace(stored.plan, recipe=recipe)
        return cls(recipe, plan, store=opened, executor=executor)

    def start(self) -> Self:
        """Start training in the background and return at once.

        Starting a sweep that runs does nothing; one that is paused goes on.
        """
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                self._go.set()
                self._state = "paused" if self._stop.is_set() else "running"
                return self
            jobs = self._open_jobs()
            self._stop.clear()
            self._done.clear()
            self._go.set()
            self._error = None
            self._state = "running"
            self._began = time.monotonic()
            for job in jobs:
                for spec in job:
                    self._statuses[spec.run_id] = "queued"
                    self.store.clear_curve(spec.run_id)
            self.store.save_sweep(self.plan, self.recipe.parts())
            self._thread = threading.Thread(
                target=self._drive, args=(JobQueue(jobs),), name="sweep", daemon=True
            )
            self._thread.start()
        _cancel_at_exit(self)
        return self

    def _open_jobs(self) -> list[Job]:
        todo = [
            tuple(spec for spec in job if self._statuses[spec.run_id] not in ENDED)
            for job in self.plan.jobs()
        ]
        return [job for job in todo if job]

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the sweep ends; returns whether it has.

        Interrupting the wait does not interrupt the sweep.

        Raises
        ------
        SweepError
            The sweep itself failed (not merely a run of it).
        """
        if self._thread is None:
            return self._state == "finished"
        ended = self._done.wait(timeout)
        if self._error is not None:
            raise SweepError(
                f"the sweep failed: {type(self._error).__name__}: {self._error}. Finished runs are "
                f"in {self.store.path}; start() goes on from there."
            ) from self._error
        return ended

    def cancel(self) -> None:
        """Stop after the current step; finished runs stand, and start() goes on from there."""
        self._stop.set()
        self._go.set()

    def pause(self) -> None:
        """Hold every run between two steps until :meth:`resume`."""
        with self._lock:
            if self._state == "running":
                self._go.clear()
                self._state = "paused"

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        with self._lock:
            if self._state == "paused":
                self._state = "running"
                self._go.set()

    @property
    def state(self) -> SweepState:
        """``new``, ``running``, ``paused``, ``finished``, ``cancelled`` or ``failed``."""
        with self._lock:
            return self._state

    @property
    def runs(self) -> RunTable:
        """Runs that finished so far, as what every fit takes."""
        return RunTable.from_runs(run for run in self._ended() if run.status == "finished")

    @property
    def failures(self) -> tuple[Run, ...]:
        """Runs that diverged, failed or were cancelled; their ``message`` says why."""
        return tuple(run for run in self._ended() if run.status != "finished")

    def _ended(self) -> list[Run]:
        with self._lock:
            return [self._results[key] for key in self._specs if key in self._results]

    def traceback(self, run_id: str) -> str:
        """Return the traceback of a failed run; empty for any other."""
        with self._lock:
            return self._tracebacks.get(run_id, "")

    def curve(self, run_id: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return a run's training curve so far: (tokens, loss), each of shape (n_points,)."""
        if run_id not in self._specs:
            raise SweepError(f"no run of this sweep is called {run_id!r}.")
        self.store.flush()
        return self.store.curve(run_id)

    def status(self) -> SweepStatus:
        """Return a snapshot of where every run stands, with the time left."""
        with self._lock:
            statuses = dict(self._statuses)
            seen, loss = dict(self._seen), dict(self._loss)
            state, took = self._state, self._took
            if state in ("running", "paused"):
                took = time.monotonic() - self._began
        jobs = [
            remaining_steps([s for s in job if statuses[s.run_id] in ("queued", "running")], seen)
            for job in self.plan.jobs()
        ]
        workers = self.executor.workers(self.recipe)
        return SweepStatus(
            state=state,
            runs=MappingProxyType(statuses),
            n_runs=len(statuses),
            n_done=sum(s not in ("queued", "running", "paused") for s in statuses.values()),
            elapsed=took,
            eta=0.0 if state == "finished" else self._clock.eta(jobs, workers),
            loss=MappingProxyType(loss),
            tokens_seen=MappingProxyType(seen),
        )

    def _check(self) -> None:
        """Return when training may go on; called before every step, so it must cost nothing."""
        if self._stop.is_set():
            raise Stopped("the sweep was cancelled")
        if not self._go.is_set():
            paused = time.monotonic()
            self._go.wait()
            self._clock.forget(time.monotonic() - paused)
            self._check()

    def _drive(self, jobs: JobQueue) -> None:
        ended: SweepState = "finished"
        try:
            self.executor.run(self.recipe, jobs, emit=self._receive, check=self._check)
        except Stopped:
            ended = "cancelled"
        except BaseException as error:
            self._error, ended = error, "failed"
        try:
            self.store.flush()
        except OSError as error:
            self._error, ended = error, "failed"
        with self._lock:
            self._state = ended
            self._took = time.monotonic() - self._began
        self._done.set()

    def _receive(self, event: Event) -> None:
        with self._lock:
            self._note(event)
        self.events.send(event)

    def _note(self, event: Event) -> None:
        match event:
            case RunStarted(spec=spec):
                self._statuses[spec.run_id] = "running"
            case StepLogged(run_id=run_id, tokens=tokens, loss=loss):
                if len(tokens):
                    self._clock.note(self._specs[run_id], len(tokens))
                    self._seen[run_id] = int(tokens[-1])
                    self._loss[run_id] = float(loss[-1])
                    self.store.append(run_id, tokens, loss)
            case RunFinished(run=run) | RunFailed(run=run):
                self._results[run.run_id] = run
                self._statuses[run.run_id] = run.status  # type: ignore[assignment]
                if isinstance(event, RunFailed) and event.traceback:
                    self._tracebacks[run.run_id] = event.traceback
                self.store.put_run(run)


_RUNNING: weakref.WeakSet[Sweep] = weakref.WeakSet()


def _cancel_at_exit(sweep: Sweep) -> None:
    """Stop the sweep before the interpreter goes: its threads must not outlive it in torch."""
    if not _RUNNING:
        atexit.unregister(_cancel_all)
        atexit.register(_cancel_all)
    _RUNNING.add(sweep)


def _cancel_all() -> None:
    for sweep in list(_RUNNING):
        if sweep.state in ("running", "paused"):
            sweep.cancel()
            sweep._done.wait(timeout=10)
