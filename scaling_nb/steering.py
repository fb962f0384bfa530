"""What a person asks of a sweep while it trains: pause, resume, cancel, leave out, try again."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Self

from .errors import StoreError, SweepError
from .executors import Executor, Job, JobQueue
from .records import RunSpec
from .status import OPEN, SweepStatus
from .training.control import Control
from .training.memory import MEMORY_MARGIN
from .training.outcomes import left_out
from .training.recipe import Recipe
from .view import SweepView

CANCELLING = "cancelling: each run is saved after its step"


class SteeredSweep(SweepView):
    """A sweep that obeys. Thread-safe: every order takes effect between two steps.

    Attributes
    ----------
    recipe : Recipe
    executor : Executor
    """

    recipe: Recipe
    executor: Executor
    _control: Control
    _jobs: JobQueue
    _bytes: Mapping[int | float, int]

    def _launch(self, jobs: list[Job]) -> None:
        raise NotImplementedError

    def start(self) -> Self:
        """Start training in the background."""
        raise NotImplementedError

    def cancel(self) -> SweepStatus:
        """Stop after the current step; finished runs stand, and start() goes on from there.

        Returns at once: :meth:`wait` until the last run is saved.
        """
        self._ours()
        with self._lock:
            if self._alive:
                self._problem = self._problem or CANCELLING
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
                self._problem = self._asks_for_help(self.store.trouble)
            else:
                self._go_on()
        return self.status()

    def _asks_for_help(self, trouble: str) -> str:
        return f"{trouble}. {self.store.trouble_remedy}, then resume()"

    def _go_on(self) -> None:
        if self._state == "paused" and not self._control.orders.cancelled:
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
            the old one in :attr:`plan`, under another ``run_id``; the sweep keeps its name.

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
        self.store.save_sweep(self.plan, self.recipe.parts(), self.sweep_id)
        return new
