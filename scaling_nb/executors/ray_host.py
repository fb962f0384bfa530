"""The one actor that a sweep has on a cluster: it submits jobs, hears them, and outlives drivers.

It lives on the head node, which is not lost with a worker, and owns the tasks: a notebook may
come and go, and finds them by the host's name. Everything runs on one event loop. Nothing here, nor
what this imports, loads torch: a sweep would wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..events import Event, Noted, RunFailed, RunFinished, RunStarted
from ..training.control import NO_ORDERS, Orders
from ..training.outcomes import failed, left_out
from ..training.pace import FLUSH_SECONDS
from .base import Checkpointing, Job, WorkerDied
from .mailbox import Mailbox
from .messages import Outcome
from .ray_task import GATHER_SECONDS, RayTask, train_remotely

MOST_LOST_NODES = 20
MESSAGES_A_SECOND = 600.0
"""Of all runs together: half of what one actor answered where it was measured, on 2 cores."""

TAKE_SECONDS = 1.0
ANSWER_SECONDS = 30.0
"""After which a question is answered though nothing has happened: neither side waits forever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How jobs are to be run.

    Attributes
    ----------
    resources : mapping
        What a job takes: ``num_cpus``, ``num_gpus``, ``resources``.
    device : str
    batch_size : int
    recipe_id : str
    checkpointing : Checkpointing or None
    path : tuple of str
    """

    resources: Mapping[str, Any]
    device: str
    batch_size: int
    recipe_id: str
    checkpointing: Checkpointing | None
    path: tuple[str, ...]


@dataclass
class _Tended:
    """A job in hand."""

    job: Job
    attempt: int = 0
    heard: int = 0
    lost: int = 0
    ended: set[str] = field(default_factory=set)
    ref: Any = None
    where: str = ""
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Answer the task that asks for orders, or that has ended and need not wait for any."""
        self.told.set()
        self.told = asyncio.Event()


class Host:
    """Submits jobs as Ray tasks and passes on what they tell; runs as a detached async actor."""

    def __init__(self) -> None:
        self._mail = Mailbox()
        self._jobs: dict[int, _Tended] = {}
        self._numbers = itertools.count(1)
        self._orders, self._version = NO_ORDERS, -1
        self._driver = 0
        self._terms: Terms | None = None
        self._payload: Any = None
        self._me: Any = None
        self._remote: Any = None
        self._failure: BaseException | None = None
        # Two, or every message of a thousand runs would wake the jobs that wait for orders.
        self._news = asyncio.Event()
        self._ordered = asyncio.Condition()

    async def attach(
        self, terms: Terms, payload: tuple[bytes, list[Any]], wanted: Sequence[str]
    ) -> tuple[int, tuple[str, ...]]:
        """Serve a new driver, alone; returns its number and the runs that are in hand.

        Parameters
        ----------
        terms : Terms
        payload : tuple of bytes and list of arrays
            The pickled recipe.
        wanted : sequence of run_id
            Runs that the driver does not know to have ended.
        """
        import ray

        if self._payload is None or self._terms is None:
            self._payload = ray.put(payload)
            self._me = ray.get_runtime_context().current_actor
            # Once: every copy of a remote function is sent to all workers.
            self._remote = ray.remote(train_remotely)
        self._terms = terms
        self._failure = None
        self._driver += 1
        self._version = -1
        self._mail.rewind(wanted)
        self._news.set()
        in_hand = [
            run_id
            for tended in self._jobs.values()
            for run_id in (spec.run_id for spec in tended.job.specs)
            if run_id not in tended.ended
        ]
        told = [run_id for run_id in wanted if self._mail.ended(run_id)]
        return self._driver, tuple(dict.fromkeys([*in_hand, *told]))

    async def submit(self, jobs: Sequence[Job]) -> None:
        """Train these jobs, as the cluster has room."""
        for job in jobs:
            for spec in job.specs:
                self._mail.reopen(spec.run_id)
            number = next(self._numbers)
            self._jobs[number] = _Tended(job)
            task = asyncio.create_task(self._tend(number))
            task.add_done_callback(self._check)

    def _check(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._news.set()

    async def take(self, driver: int) -> list[Event] | None:
        """Return what is new, soon after there is something; None to a driver that was replaced.

        Raises
        ------
        Exception
            What no run is to blame for, such as a recipe that no worker can read.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKE_SECONDS):
                await self._news.wait()
                if self._jobs:
                    # An answer costs more than what it brings: others may go with it.
                    await asyncio.sleep(GATHER_SECONDS)
        self._news.clear()
        if driver != self._driver:
            return None
        if self._failure is not None:
            raise self._failure
        return self._mail.take()

    async def order(self, driver: int, version: int, orders: Orders) -> None:
        """Have every job obey; orders may arrive in any order, and the newest count."""
        import ray

        if driver != self._driver or version <= self._version:
            return
        self._orders, self._version = orders, version
        if orders.paused or orders.cancelled:
            for tended in self._jobs.values():
                if tended.ref is not None and not tended.heard:
                    # Not begun, as far as is known: its place in the queue is given up. By force,
                    # as a worker interrupted in an import could never import that again.
                    ray.cancel(tended.ref, force=True)
        for tended in self._jobs.values():
            tended.tell()
        async with self._ordered:
            self._ordered.notify_all()

    async def report(
        self, number: int, attempt: int, sent: int, events: list[Event]
    ) -> float | None:
        """Take in a message of a task; returns for how many seconds it should gather the next.

        None: that task is no longer the one listened to.
        """
        tended = self._jobs.get(number)
        if tended is None or attempt != tended.attempt:
            return None
        if sent > tended.heard:
            tended.heard = sent
            self._hear(tended, events)
        return gathering_seconds(len(self._jobs))

    def _hear(self, tended: _Tended, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, RunStarted):
                tended.where = event.where
            elif isinstance(event, RunFinished | RunFailed):
                tended.ended.add(event.run.run_id)
            self._mail.put(event)
        self._news.set()

    async def next_orders(self, number: int, attempt: int, known: Orders) -> Orders | None:
        """Return the orders in force, as soon as they differ from those that are known.

        None: that task has ended, or is no longer the one listened to.
        """
        tended = self._jobs.get(number)
        if tended is not None and attempt == tended.attempt and self._orders == known:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await tended.told.wait()
        if self._jobs.get(number) is not tended or tended is None or attempt != tended.attempt:
            return None
        return self._orders

    async def _tend(self, number: int) -> None:
        """See a job to its end, whatever becomes of the machines that train it."""
        tended = self._jobs[number]
        try:
            while tended.job.specs:
                if self._orders.paused:
                    async with self._ordered:
                        await self._ordered.wait_for(
                            lambda: not self._orders.paused or self._orders.cancelled
                        )
                if self._orders.cancelled:
                    for spec in tended.job.specs:
                        self._mail.put(left_out(spec, "cancelled", "stopped by the user"))
                    return
                outcome = await self._attempt(number, tended)
                # From here on nothing is taken from that attempt, should it still live.
                tended.attempt += 1
                tended.tell()
                self._again(tended, tended.job.without(tended.ended), outcome)
        finally:
            del self._jobs[number]
            self._news.set()

    async def _attempt(self, number: int, tended: _Tended) -> Outcome | WorkerDied | None:
        """Run the job's task; returns how it ended, None where its machine was lost."""
        import ray

        assert self._terms is not None
        terms = self._terms
        tended.attempt, tended.heard, tended.where = tended.attempt + 1, 0, ""
        first = tended.job.specs[0]
        task = RayTask(
            job=tended.job,
            number=number,
            attempt=tended.attempt,
            recipe_id=terms.recipe_id,
            device=terms.device,
            checkpointing=terms.checkpointing,
            orders=self._orders,
            path=terms.path,
        )
        remote = self._remote.options(
            max_retries=0, name=f"size={first.size:g} seed={first.seed}", **terms.resources
        )
        # In a list, so that only a worker that does not know the recipe fetches it.
        tended.ref = remote.remote(task, [self._payload], self._me)
        try:
            outcome, events = await tended.ref
            self._hear(tended, events)
            found: Outcome = outcome
            return found
        except (ray.exceptions.TaskCancelledError, asyncio.CancelledError):
            return Outcome(kind="released")
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
            return WorkerDied(f"the worker process ended: {_first_line(error)}")
        except (ray.exceptions.NodeDiedError, ray.exceptions.RaySystemError) as error:
            tended.lost += 1
            if tended.lost > MOST_LOST_NODES:
                return WorkerDied(f"{tended.lost} machines were lost under it: {error}")
            return None
        finally:
            tended.ref = None

    def _again(self, tended: _Tended, rest: Job, outcome: Outcome | WorkerDied | None) -> None:
        """Put into `tended` what is left of a job after an attempt; empty where it is done."""
        tended.job = rest
        if not rest.specs or (isinstance(outcome, Outcome) and outcome.kind == "released"):
            return
        what = f"size {rest.specs[0].size:g}, seed {rest.specs[0].seed}"
        if outcome is None:
            machine = tended.where.split(" ")[0] or "its machine"
            waiting = tuple(spec.run_id for spec in rest.specs)
            self._mail.put(
                Noted(message=f"{what} goes on elsewhere: {machine} was lost", waiting=waiting)
            )
            return
        if isinstance(outcome, Outcome) and outcome.kind in ("error", "done", "stopped"):
            tended.job = replace(rest, specs=())
            if outcome.error is not None:
                raise outcome.error
            return
        error = outcome if isinstance(outcome, WorkerDied) else outcome.error
        assert error is not None
        # Alone or not makes no difference here: each task has the memory of its own machine.
        lighter = replace(rest, alone=True)
        again = (
            lighter.after_death(self._batch_size)
            if isinstance(outcome, WorkerDied)
            else lighter.smaller(self._batch_size)
        )
        if again is None:
            for spec in rest.specs:
                self._mail.put(failed(spec, error))
            tended.job = replace(rest, specs=())
            return
        where = f" on {tended.where}" if tended.where else ""
        self._mail.put(Noted(message=f"{what}: {error}{where}; it is tried again"))
        tended.job = again

    @property
    def _batch_size(self) -> int:
        assert self._terms is not None
        return self._terms.batch_size


def gathering_seconds(n_jobs: int) -> float:
    """Return how long each of many runs should gather points before it tells them."""
    paced = n_jobs / MESSAGES_A_SECOND
    return paced if paced > FLUSH_SECONDS else GATHER_SECONDS


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
