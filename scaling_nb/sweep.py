"""The sweep: the one mutable object. It trains a plan's runs in the background."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .book import RunBook
from .errors import StoreError, SweepError
from .events import Event, RunFailed, RunFinished, RunStarted, Signal, StepLogged, StorageFailed
from .executors import Checkpointing, Executor, Job, JobQueue, make_executor
from .executors.base import MEMORY_MARGIN, MEMORY_SHARE
from .follower import POLL_SECONDS, Follower
from .lease import Holder, Lease, current_holder
from .plan import SweepPlan
from .records import Run, RunSpec, RunTable
from .running import find_running, register, store_path, unregister
from .schedule import order_jobs
from .status import OPEN, SweepState, SweepStatus
from .store import RunStore
from .training.checkpoint import remove_folder, remove_leftovers
from .training.control import Control, Stopped
from .training.devices import free_memory
from .training.memory import run_bytes
from .training.outcomes import left_out
from .training.recipe import Recipe
from .training.trunk import CHECKPOINT_SECONDS

__all__ = ["Sweep", "SweepState", "SweepStatus"]


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
    executor : {"threads", "processes", "inline", "auto"} or Executor
    checkpoint_every : float, seconds
        Between two checkpoints of a run, beside the store in ``runs.checkpoints``.

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

    def __new__(
        cls,
        recipe: Recipe,
        plan: SweepPlan,
        *,
        store: str | os.PathLike[str] | RunStore = "runs.db",
        **options: object,
    ) -> Self:
        """Return the sweep that trains this plan in this store already, where there is one."""
        running = find_running(store_path(store), plan.plan_id)
        return running if isinstance(running, cls) else super().__new__(cls)

    def __init__(
        self,
        recipe: Recipe,
        plan: SweepPlan,
        *,
        store: str | os.PathLike[str] | RunStore = "runs.db",
        executor: str | Executor = "threads",
        checkpoint_every: float = CHECKPOINT_SECONDS,
    ) -> None:
        if hasattr(self, "plan"):
            return  # the cell was run again: this is the sweep that runs
        if plan.recipe_id != recipe.recipe_id:
            raise SweepError(
                "the plan was made from another recipe: their content differs. Plan anew with "
                "plan_sweep(recipe, …)."
            )
        self.recipe, self.plan = recipe, plan
        self._bytes = {size: run_bytes(recipe, size) for size in {run.size for run in plan.runs}}
        self.executor, self.executor_reason = make_executor(
            executor, recipe, max(self._bytes.values(), default=0)
        )
        self.checkpoint_every = checkpoint_every
        self.events: Signal[Event] = Signal()
        self.store = store if isinstance(store, RunStore) else RunStore(store)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._control = Control()
        self._jobs = JobQueue([])
        self._error: BaseException | None = None
        self._problem = ""
        self._checkpoints = self.store.path.with_suffix(".checkpoints")
        self._began = self._took = 0.0
        self._book = RunBook(plan, self.store.runs())
        self._state: SweepState = "finished" if self._book.complete else "new"
        self._lease = Lease(
            self.store, plan.plan_id, state=lambda: self._state, on_lost=self._taken_over
        )
        self._holder: Holder | None = None
        self.store.on_trouble = lambda message: self._receive(StorageFailed(message=message))
        holder = current_holder(self.store)
        if holder is not None and holder.sweep_id == plan.plan_id:
            self._follow(holder)

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
        sweep = cls(recipe, plan, store=opened, executor=executor)
        if sweep.store is not opened:
            opened.close()
        return sweep

    def start(self) -> Self:
        """Start training in the background and return at once.

        Starting a sweep that runs does nothing; one that is paused goes on. One that another
        process trains is watched: events, runs and curves arrive as they do there.

        Raises
        ------
        SweepError
            Another sweep trains in the same store.
        """
        with self._lock:
            if self._alive:
                if not self._control.orders.cancelled and self._holder is None:
                    self._go_on()
                return self
            self._launch(
                [
                    Job(specs=specs, bytes=self._need(specs[0]), more_follow=more)
                    for specs, more in order_jobs(self._book.open_jobs())
                ]
            )
        return self

    @property
    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._done.is_set()

    def _launch(self, jobs: list[Job]) -> None:
        if (holder := self._lease.acquire()) is not None:
            if holder.sweep_id != self._lease.sweep_id:
                raise SweepError(
                    f"another sweep trains in {self.store.path} ({holder}). Wait for it, cancel it "
                    "there, or use another store."
                )
            self._follow(holder)
            return
        self._holder = None
        self._control = Control()
        self._done.clear()
        self._error, self._problem = None, ""
        self._state = "running"
        self._began = time.monotonic()
        self._book.queue(spec.run_id for job in jobs for spec in job.specs)
        self.store.save_sweep(self.plan, self.recipe.parts())
        self._jobs = JobQueue(jobs, memory=self._memory())
        self._run_in_background(self._drive)
        register(self)

    def _run_in_background(self, target: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=target, name="sweep", daemon=True)
        self._thread.start()

    def _follow(self, holder: Holder) -> None:
        """Watch the process that trains this sweep until it ends there."""
        self._holder = holder
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
            self._holder, self._problem = None, ""
            self._close_books("finished" if self._book.complete else "cancelled")

    def _taken_over(self) -> None:
        self._problem = "another process has taken this sweep over"
        self._control.cancel()

    def _ours(self) -> None:
        if self._holder is not None:
            raise SweepError(
                f"this sweep is trained by {self._holder}, and is read-only here. Do this there, "
                "or wait until that process has ended, and start() here."
            )

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

    def cancel(self) -> SweepStatus:
        """Stop after the current step; finished runs stand, and start() goes on from there."""
        self._ours()
        self._control.cancel()
        return self.status()

    def pause(self) -> SweepStatus:
        """Save every run and hold it between two steps until :meth:`resume`."""
        self._ours()
        with self._lock:
            if self._state == "running":
                self._control.pause()
                self._state = "paused"
        return self.status()

    def resume(self) -> SweepStatus:
        """Go on after :meth:`pause`."""
        self._ours()
        if self.store.trouble:
            with contextlib.suppress(StoreError):
                self.store.flush()
        with self._lock:
            if self.store.trouble:
                self._problem = f"{self.store.trouble}. Make room, then resume()"
            else:
                self._go_on()
        return self.status()

    def _go_on(self) -> None:
        if self._state == "paused":
            self._state, self._problem = "running", ""
            self._control.resume()

    def skip(self, run_id: str) -> SweepStatus:
        """Leave a run out, within one step if it is in training; :meth:`retry` takes it back.

        Raises
        ------
        SweepError
            The sweep has no such run, or it has ended.
        """
        self._ours()
        with self._lock:
            spec = self._spec(run_id)
            status = self._book.statuses[run_id]
            if status not in OPEN:
                raise SweepError(f"run {run_id} is {status}. Only a run that is open can be left.")
            event = left_out(spec, "skipped", "skipped by the user")
            self._book.note(event)
            self.store.put_run(event.run)
            if self._alive:
                self._control.skip(run_id)
            elif self._book.complete:
                self._state = "finished"
        self.events.send(event)
        return self.status()

    def retry(self, run_id: str, *, lr: float | None = None) -> SweepStatus:
        """Train a run again that diverged, failed, was cancelled or skipped; it goes first.

        Starts training if the sweep does not run, of this run alone.

        Parameters
        ----------
        lr : float, optional
            Another peak learning rate, such as half of what diverged. The run takes the place of
            the old one in :attr:`plan`, under another ``run_id``.

        Raises
        ------
        SweepError
            The sweep has no such run, or it is finished or still open.
        """
        self._ours()
        with self._lock:
            spec = self._spec(run_id)
            status = self._book.statuses[run_id]
            if status == "finished" or status in OPEN:
                raise SweepError(
                    f"run {run_id} is {status}. Only a run that diverged, failed, was cancelled or "
                    "skipped can be trained again."
                )
            self.store.forget_run(run_id)
            if lr is not None:
                spec = self._replace(spec, lr)
            if self._alive and run_id in self._control.orders.skipped and lr is None:
                # Its job still has it, and comes to it in its turn.
                self._control.unskip(run_id)
                self._book.queue([run_id])
            elif self._alive:
                self._book.queue([spec.run_id])
                self._jobs.put(Job(specs=(spec,), bytes=self._need(spec), more_follow=True))
            else:
                self._launch([Job(specs=(spec,), bytes=self._need(spec), more_follow=True)])
        return self.status()

    def _need(self, spec: RunSpec) -> int:
        return round(MEMORY_MARGIN * self._bytes[spec.size])

    def _memory(self) -> int:
        return round(MEMORY_SHARE * free_memory(self.recipe.device))

    def _spec(self, run_id: str) -> RunSpec:
        if run_id not in self._book.specs:
            raise SweepError(f"no run of this sweep is called {run_id!r}.")
        return self._book.specs[run_id]

    def _replace(self, old: RunSpec, lr: float) -> RunSpec:
        """Put a run with another learning rate, on a trunk of its own, in the old one's place."""
        new = dataclasses.replace(old, lr=lr, trunk_id=f"{old.trunk_id} lr={lr:g}")
        runs = tuple(new if run.run_id == old.run_id else run for run in self.plan.runs)
        self.plan = dataclasses.replace(self.plan, runs=runs)
        self._book = self._book.for_plan(self.plan)
        self.store.save_sweep(self.plan, self.recipe.parts())
        return new

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
            return self._book.ended()

    def traceback(self, run_id: str) -> str:
        """Return the traceback of a failed run; empty for any other."""
        with self._lock:
            return self._book.tracebacks.get(run_id, "")

    def curve(self, run_id: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return a run's training curve so far: (tokens, loss), each of shape (n_points,)."""
        self._spec(run_id)
        with contextlib.suppress(StoreError):
            self.store.flush()  # what a full disk keeps out is still in memory, and comes later
        return self.store.curve(run_id)

    def status(self) -> SweepStatus:
        """Return a snapshot of where every run stands, with the time left."""
        workers = self.executor.workers(self.recipe)
        with self._lock:
            took = self._took
            if self._state in ("running", "paused"):
                took = time.monotonic() - self._began
            return self._book.status(self._state, took, workers, self._problem)

    def _drive(self) -> None:
        checkpointing = Checkpointing(folder=self._checkpoints, every=self.checkpoint_every)
        try:
            remove_leftovers(self._checkpoints)
            while not self._finish_if_done():
                self.executor.run(
                    self.recipe,
                    self._jobs,
                    emit=self._receive,
                    control=self._control,
                    checkpointing=checkpointing,
                )
        except Stopped:
            self._end("cancelled")
        except BaseException as error:
            self._end("failed", error)

    def _finish_if_done(self) -> bool:
        try:
            self.store.flush()
        except StoreError:
            if not self.store.trouble:
                raise
            self._control.hold()
            return False
        with self._lock:
            if len(self._jobs):
                return False
            if self._book.complete:
                remove_folder(self._checkpoints, self.plan.runs)
            self._close_books("finished")
            return True

    def _end(self, state: SweepState, error: BaseException | None = None) -> None:
        try:
            self.store.flush()
        except OSError as failure:
            state, error = "failed", error or failure
        with self._lock:
            self._error = error
            self._problem = str(error) if error else self._problem
            self._close_books(state)

    def _close_books(self, state: SweepState) -> None:
        self._state = state
        self._took = time.monotonic() - self._began
        self._lease.release()
        unregister(self)
        self._done.set()

    def _receive(self, event: Event) -> None:
        with self._lock:
            self._book.note(event)
            self._keep(event)
        self.events.send(event)

    def _keep(self, event: Event) -> None:
        match event:
            case RunStarted(spec=spec):
                self.store.clear_curve(spec.run_id)
            case StepLogged(run_id=run_id, tokens=tokens, loss=loss):
                if len(tokens):
                    self.store.append(run_id, tokens, loss)
            case RunFinished(run=run) | RunFailed(run=run):
                self.store.put_run(run)
            case StorageFailed(message=message):
                self._problem = f"{message}. Make room, then resume()"
                if self._state == "running":
                    self._state = "paused"
                    self._control.pause()
