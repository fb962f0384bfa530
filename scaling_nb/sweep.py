"""The sweep: the one mutable object. It trains a plan's runs in the background."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from typing import Self

from .cost import CostEstimate, estimate_cost
from .errors import StoreError, SweepError
from .events import Event, RunFailed, RunFinished, RunStarted, StepLogged, StorageFailed
from .executors import Checkpointing, Executor, Job, JobQueue, make_executor, settle, warm_up
from .executors.base import MEMORY_SHARE
from .lease import Lease
from .metering import Meter, Taken
from .plan import SweepPlan
from .reopening import Settings, find_stored, keep_settings, kept_settings
from .running import find_running, register, store_path, unregister
from .schedule import order_jobs
from .status import SweepState, SweepStatus
from .steering import CANCELLING, SteeredSweep
from .store import RunStore
from .training.checkpoint import remove_folder, remove_leftovers
from .training.control import Control, Stopped
from .training.devices import (
    CONTEXT_BYTES,
    DeviceMemory,
    cpu_count,
    free_memory,
    worker_devices,
)
from .training.memory import run_bytes
from .training.pace import CHECKPOINT_SECONDS
from .training.recipe import Recipe

__all__ = ["Sweep", "SweepState", "SweepStatus"]


class Sweep(SteeredSweep):
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
    executor : {"threads", "processes", "inline", "auto", "ray"} or Executor
        Worker processes begin to import torch as the sweep is made.
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
            executor,
            recipe,
            max(self._bytes.values(), default=0),
            recipe.tokens_per_step * max((r.flops_per_token for r in plan.runs), default=0.0),
        )
        self.checkpoint_every = checkpoint_every
        self._settings = Settings(
            executor=executor if isinstance(executor, str) else executor.name,
            checkpoint_every=checkpoint_every,
        )
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
        if self._state == "new" and not self.store.read_only:
            warm_up(self.executor, recipe)

    @classmethod
    def open(
        cls,
        store: str | os.PathLike[str],
        recipe: Recipe,
        *,
        executor: str | Executor | None = None,
        checkpoint_every: float | None = None,
    ) -> Self:
        """Re-attach to the newest sweep in a store, after a crash or a restarted kernel.

        A store that cannot be written opens too: its runs can then be seen, and none trained.

        Parameters
        ----------
        store : path-like
        recipe : Recipe
        executor : str or Executor, optional
        checkpoint_every : float, seconds, optional
            None: both as the sweep was started with last.

        Raises
        ------
        SweepError
            The store holds no sweep, or the recipe differs from the stored one: says in what.
        """
        opened = RunStore(store)
        try:
            stored = find_stored(opened, recipe.parts())
            kept = kept_settings(opened, stored.sweep_id)
            if kept is not None:
                executor = kept.executor if executor is None else executor
                checkpoint_every = checkpoint_every or kept.checkpoint_every
            sweep = cls(
                recipe,
                dataclasses.replace(stored.plan, recipe=recipe),
                store=opened,
                executor="threads" if executor is None else executor,
                checkpoint_every=checkpoint_every or CHECKPOINT_SECONDS,
            )
        except BaseException:
            opened.close()
            raise
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
        StoreError
            The store cannot be written.
        """
        if not self._alive:
            with contextlib.suppress(StoreError):
                self.store.flush()  # before the lock, which the store's own thread may want
        with self._lock:
            if self._alive:
                if not self._control.orders.cancelled and self._holder is None:
                    self._go_on()
                return self
            # Another process may have trained in here since.
            self._catch_up()
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
        self._holder, self._abandoned = None, False
        self._control = Control()
        self._done.clear()
        self._error, self._problem = None, ""
        self._state = "running"
        self._began = time.monotonic()
        # What is taken compares with what was foreseen only where nothing was done before.
        self._whole = not self._book.results
        self._book.queue(spec.run_id for job in jobs for spec in job.specs)
        self._meter = Meter(
            lambda: self._state == "running", self.executor.pids, self._device_memory()
        )
        self._meter.start()
        self.store.save_sweep(self.plan, self.recipe.parts(), self.sweep_id)
        keep_settings(self.store, self.sweep_id, self._settings)
        if self._whole and self._foreseen is not None:
            self._keep_foreseen(self._foreseen)
        self._jobs = JobQueue(jobs, memory=None if self.executor.remote else self._memory())
        self._run_in_background(self._drive)
        register(self)

    def _memory(self) -> dict[str, int]:
        devices = set(worker_devices(self.recipe.device, self.recipe.devices))
        return {str(device): round(MEMORY_SHARE * free_memory(device)) for device in devices}

    def _device_memory(self) -> Callable[[], int] | None:
        if self.recipe.device.type != "cuda" or self.executor.remote:
            return None
        memory = DeviceMemory(
            worker_devices(self.recipe.device, self.recipe.devices),
            in_process=self.executor.shares_interpreter,
        )
        return lambda: sum(memory.taken())

    def _taken_over(self) -> None:
        self._problem = "another process has taken this sweep over: start() watches it"
        self._control.cancel()

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
        settle()
        own, gpus = self.executor.worker_bytes, None
        if self.recipe.device.type == "cuda" and not self.executor.remote:
            gpus = len(worker_devices(self.recipe.device, self.recipe.devices))
            # The device's memory is what is foreseen.
            own = 0 if self.executor.shares_interpreter else CONTEXT_BYTES
        estimate = estimate_cost(
            self.recipe,
            jobs,
            workers=self.executor.workers(self.recipe),
            side_by_side=None if self.executor.shares_interpreter else 1,
            beside=0 if self.executor.remote else cpu_count() - 1,
            worker_bytes=own,
            gpus=gpus,
        )
        self._foreseen = estimate
        self._keep_foreseen(estimate)
        return estimate

    def _keep_foreseen(self, estimate: CostEstimate) -> None:
        foreseen = Taken(seconds=estimate.seconds, peak_bytes=estimate.peak_bytes)
        self.store.put_note(f"predicted {self.sweep_id}", dataclasses.asdict(foreseen))

    def _drive(self) -> None:
        checkpointing = Checkpointing(folder=self._checkpoints, every=self.checkpoint_every)
        try:
            if not self.executor.remote:  # there, somebody may be writing them
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
        if self._lease.lost:
            raise Stopped("another process trains this sweep")
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
            if self._lease.lost:
                # What was trained here since was dropped; the store tells how things stand.
                self._catch_up()
                state = "finished" if self._book.complete else state
            self._error = error
            self._problem = str(error) if error else self._problem.replace(CANCELLING, "")
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
                self._problem = self._asks_for_help(message)
                if self._state == "running":
                    self._state = "paused"
                    self._control.pause()
