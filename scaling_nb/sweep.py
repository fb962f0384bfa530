"""The sweep: the one mutable object. It trains a plan's runs in the background."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from typing import Self

from .cost import CostEstimate, estimate_cost
from .errors import StoreError, SweepError
from .events import Event, RunFailed, RunFinished, RunStarted, StepLogged, StorageFailed
from .executors import Checkpointing, Executor, Job, JobQueue, make_executor
from .executors.base import MEMORY_MARGIN, MEMORY_SHARE
from .lease import Lease
from .metering import Meter, Taken
from .plan import SweepPlan
from .records import RunSpec
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
from .view import SweepView

__all__ = ["Sweep", "SweepState", "SweepStatus"]


class Sweep(SweepView):
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
        if hasattr(self, "recipe"):
            return  # the cell was run again: this is the sweep that runs
        if plan.recipe_id != recipe.recipe_id:
            raise SweepError(
                "the plan was made from another recipe: their content differs. Plan anew with "
                "plan_sweep(recipe, …)."
            )
        self.recipe = recipe
        self._bytes = {size: run_bytes(recipe, size) for size in {run.size for run in plan.runs}}
        self.executor, self.executor_reason = make_executor(
            executor, recipe, max(self._bytes.values(), default=0)
        )
        self.checkpoint_every = checkpoint_every
        super().__init__(plan, store if isinstance(store, RunStore) else RunStore(store))
        self._control = Control()
        self._jobs = JobQueue([])
        self._checkpoints = self.store.path.with_suffix(".checkpoints")
        self._meter: Meter | None = None
        self._whole = False
        self._lease = Lease(
            self.store, self.sweep_id, state=lambda: self._state, on_lost=self._taken_over
        )
        self.store.on_trouble = lambda message: self._receive(StorageFailed(message=message))

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

    def _launch(self, jobs: list[Job]) -> None:
        if (holder := self._lease.acquire()) is not None:
            if holder.sweep_id != self.sweep_id:
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
        # What is taken compares with what was foreseen only where nothing was done before.
        self._whole = not self._book.results
        self._book.queue(spec.run_id for job in jobs for spec in job.specs)
        self._meter = Meter(lambda: self._state == "running", self.executor.pids)
        self._meter.start()
        self.store.save_sweep(self.plan, self.recipe.parts())
        memory = round(MEMORY_SHARE * free_memory(self.recipe.device))
        self._jobs = JobQueue(jobs, memory=None if self.executor.remote else memory)
        self._run_in_background(self._drive)
        register(self)

    def _taken_over(self) -> None:
        self._problem = "another process has taken this sweep over"
        self._control.cancel()

    def cancel(self) -> SweepStatus:
        """Stop after the current step; finished runs stand, and start() goes on from there."""
        self._ours()
        self._control.cancel()
        return self.status()

    def leave(self) -> None:
        """Attend to training no longer, as when this process ends.

        What trains on other machines goes on there, and ``Sweep.open(…).start()`` finds it again;
        what trains here is cancelled.
        """
        if self.executor.remote:
            self._control.leave()
        else:
            self._control.cancel()

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
            self._book.clock.interrupt()
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

    def _replace(self, old: RunSpec, lr: float) -> RunSpec:
        """Put a run with another learning rate, on a trunk of its own, in the old one's place."""
        new = dataclasses.replace(old, lr=lr, trunk_id=f"{old.trunk_id} lr={lr:g}")
        runs = tuple(new if run.run_id == old.run_id else run for run in self.plan.runs)
        self.plan = dataclasses.replace(self.plan, runs=runs)
        self._book = self._book.for_plan(self.plan)
        self.store.save_sweep(self.plan, self.recipe.parts())
        return new

    def estimate(self) -> CostEstimate:
        """Time a few real steps and estimate what the open runs take; kept in the store.

        Unlike :meth:`SweepPlan.estimate` this knows the executor, and which runs are done.

        Raises
        ------
        SweepError
            Every run has ended.
        """
        jobs = [specs for specs, _ in order_jobs(self._book.open_jobs())]
        if not jobs:
            raise SweepError("every run has ended: there is nothing left to estimate.")
        estimate = estimate_cost(
            self.recipe,
            jobs,
            workers=self.executor.workers(self.recipe),
            side_by_side=None if self.executor.shares_interpreter else 1,
            worker_bytes=self.executor.worker_bytes,
        )
        foreseen = Taken(seconds=estimate.seconds, peak_bytes=estimate.peak_bytes)
        self.store.put_note(f"predicted {self.sweep_id}", dataclasses.asdict(foreseen))
        return estimate

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
        if not len(self._jobs) and self._meter is not None:
            taken, self._meter = self._meter.stop(), None
            if self._whole:
                self.store.put_note(f"actual {self.sweep_id}", dataclasses.asdict(taken))
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
        if self._meter is not None:
            self._meter.stop()
        self._lease.release()
        unregister(self)
        super()._close_books(state)

    def _workers(self) -> int:
        return self.executor.workers(self.recipe)

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
