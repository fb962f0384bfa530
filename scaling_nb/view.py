"""A sweep as it is seen: by the process that trains it, and by others, live."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .book import RunBook
from .errors import StoreError, SweepError
from .events import Event, Signal
from .follower import POLL_SECONDS, Follower
from .lease import Holder, current_holder, left_behind
from .metering import Taken
from .plan import SweepPlan
from .records import Run, RunSpec, RunTable
from .status import SweepState, SweepStatus
from .store import RunStore


class SweepView:
    """Where a sweep stands: its runs, curves and events. Thread-safe.

    If another process trains the sweep as this is made, it is watched until it ends there.

    Parameters
    ----------
    plan : SweepPlan
    store : RunStore

    Attributes
    ----------
    events : Signal of Event
        Observers are called on worker threads: enqueue and return.
    sweep_id : str
        Names the sweep in its store; stays when a run of its plan is replaced.
    """

    def __init__(self, plan: SweepPlan, store: RunStore) -> None:
        self.plan, self.store = plan, store
        self.sweep_id = plan.plan_id
        self._foreseen = plan.last_estimate
        if (stored := store.find_sweep(plan.plan_id)) is not None:
            # A run of it may have been given another learning rate since it was planned.
            self.sweep_id = stored.sweep_id
            self.plan = replace(stored.plan, recipe=plan.recipe)
        self.events: Signal[Event] = Signal()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._holder: Holder | None = None
        self._error: BaseException | None = None
        self._problem = ""
        self._began = self._took = 0.0
        self._abandoned = False
        self._book = RunBook(self.plan, store.runs())
        self._state: SweepState = "finished" if self._book.complete else "new"
        if store.read_only:
            self._problem = f"{store.path} cannot be written: its runs can be seen, none trained"
        holder = current_holder(store)
        if holder is not None and holder.sweep_id == self.sweep_id:
            self._follow(holder)

    @property
    def state(self) -> SweepState:
        """``new``, ``running``, ``paused``, ``finished``, ``cancelled`` or ``failed``."""
        with self._lock:
            return self._state

    @property
    def watched(self) -> bool:
        """Whether another process trains this sweep, and this one only sees it."""
        return self._holder is not None

    @property
    def abandoned(self) -> bool:
        """Whether the process that trained this sweep, watched from here, was killed."""
        return self._abandoned

    @property
    def runs(self) -> RunTable:
        """Runs that finished so far, as what every fit takes."""
        finished = (run for run in self._ended() if run.status == "finished")
        return RunTable.from_runs(finished, unit=self.plan.unit)

    @property
    def failures(self) -> tuple[Run, ...]:
        """Runs that diverged, failed or were cancelled; their ``message`` says why."""
        return tuple(run for run in self._ended() if run.status != "finished")

    def _ended(self) -> list[Run]:
        with self._lock:
            return self._book.ended()

    def traceback(self, run_id: str) -> str:
        """Return the traceback of a failed run; empty for any other."""
        with self._lock:
            return self._book.tracebacks.get(run_id, "")

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

    def costs(self) -> tuple[Taken | None, Taken | None]:
        """Return what the newest estimate foresaw and what training took; None where unknown."""
        with contextlib.suppress(StoreError):
            self.store.flush()
        notes = [self.store.note(f"{k} {self.sweep_id}") for k in ("predicted", "actual")]
        predicted, actual = (None if note is None else Taken(**note) for note in notes)
        return predicted, actual

    def curve(self, run_id: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return a run's training curve so far: (tokens, loss), each of shape (n_points,)."""
        self._spec(run_id)
        with contextlib.suppress(StoreError):
            self.store.flush()  # what a full disk keeps out is still in memory, and comes later
        return self.store.curve(run_id)

    def status(self) -> SweepStatus:
        """Return a snapshot of where every run stands, with the time left."""
        workers = self._workers()
        with self._lock:
            took = self._took
            if self._state in ("running", "paused"):
                took = time.monotonic() - self._began
            return self._book.status(self._state, took, workers, self._problem)

    def _spec(self, run_id: str) -> RunSpec:
        if run_id not in self._book.specs:
            raise SweepError(f"no run of this sweep is called {run_id!r}.")
        return self._book.specs[run_id]

    @property
    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._done.is_set()

    def _ours(self) -> None:
        holder = self._holder
        if holder is None and not self._alive:
            found = current_holder(self.store)
            holder = found if found is not None and found.sweep_id == self.sweep_id else None
        if holder is not None:
            raise SweepError(
                f"this sweep is trained by {holder}, and is read-only here. Do this there, "
                "or wait until that process has ended, and start() here."
            )

    def _run_in_background(self, target: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=target, name="sweep", daemon=True)
        self._thread.start()

    def _follow(self, holder: Holder) -> None:
        """Watch the process that trains this sweep until it ends there."""
        self._holder, self._abandoned = holder, False
        self._done.clear()
        self._state, self._problem = holder.state, f"trained by {holder}; read-only here"
        self._began = time.monotonic()
        self._run_in_background(self._watch)

    def _watch(self) -> None:
        follower = Follower(self.store, self._book.specs, self._book.results)
        holder: Holder | None = self._holder
        while holder is not None:
            time.sleep(POLL_SECONDS)
            # First the holder: what it wrote before it went is then seen in the last look.
            holder = current_holder(self.store)
            for event in follower.look():
                with self._lock:
                    self._book.note(event)
                self.events.send(event)
            if holder is not None:
                self._state = holder.state
        with self._lock:
            trainer, self._holder, self._problem = self._holder, None, ""
            self._catch_up()
            self._abandoned = not self._book.complete and left_behind(self.store)
            if self._abandoned:
                self._problem = f"{trainer} is gone, and runs are left: start() goes on here"
            self._close_books("finished" if self._book.complete else "cancelled")

    def _catch_up(self) -> None:
        """Take in what others made of this sweep: its plan, and how its runs ended."""
        stored = self.store.find_sweep(self.sweep_id)
        if stored is not None and stored.plan.plan_id != self.plan.plan_id:
            self.plan = replace(stored.plan, recipe=self.plan.recipe)
            self._book = self._book.for_plan(self.plan)
        self._book.take_in(self.store.runs())

    def _close_books(self, state: SweepState) -> None:
        self._state = state
        self._took = time.monotonic() - self._began
        self._done.set()

    def _workers(self) -> int:
        """Return how many runs train at once; unknown from afar."""
        return 1
