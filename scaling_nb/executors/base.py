"""What an executor is: it takes jobs until there are none, and tells what happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from ..errors import ScalingError
from ..events import Event
from ..records import RunSpec
from ..training.control import Control
from ..training.outcomes import OutOfMemory, failed
from ..training.pace import CHECKPOINT_SECONDS

if TYPE_CHECKING:
    from ..training.checkpoint import Checkpoint
    from ..training.recipe import Recipe

Emit = Callable[[Event], None]
MOST_DEATHS = 3

MEMORY_SHARE = 0.7
"""Share of the free memory that a sweep takes."""


class WorkerDied(ScalingError):
    """A worker process ended under its job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointing:
    """Where jobs are saved, and how often.

    Attributes
    ----------
    folder : Path
    every : float, seconds
    url : str
        Where the files are kept instead of in `folder`; see `RemoteCheckpoint`.
    """

    folder: Path
    every: float = CHECKPOINT_SECONDS
    url: str = ""

    @property
    def place(self) -> str:
        """Where the files are."""
        return self.url or str(self.folder)

    def at(self, storage: str) -> Self:
        """Return the same with its files in a folder of `storage`, a path or an fsspec URL."""
        place = f"{storage.rstrip('/')}/{self.folder.name}"
        return replace(self, url=place) if "://" in storage else replace(self, folder=Path(place))

    def of(self, job: Job, kind: type[Checkpoint] | None = None) -> Checkpoint:
        """Return the place of one job; `kind` is how this process uses a folder."""
        # Here, because a cluster's host knows this class and has no use for torch.
        from ..training.checkpoint import Checkpoint, checkpoint_key
        from ..training.remote_checkpoint import RemoteCheckpoint

        key = checkpoint_key(job.specs[0])
        return (
            RemoteCheckpoint(self.url, key) if self.url else (kind or Checkpoint)(self.folder, key)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Runs of one training trunk, and how they are to be trained.

    Attributes
    ----------
    specs : tuple of RunSpec
        Shortest first; equal in size, ``trunk_id`` and learning rate.
    bytes : int, bytes
        Memory the job adds while it trains; 0 where unknown.
    more_follow : bool
        A later job continues this trunk.
    alone : bool
        Nothing else trains meanwhile: it ran out of memory before.
    micro_batches : int
        Pieces that each batch is computed in, for the same reason.
    deaths : int
        Worker processes that ended under it.
    """

    specs: tuple[RunSpec, ...]
    bytes: int = field(default=0, compare=False)
    more_follow: bool = False
    alone: bool = False
    micro_batches: int = 1
    deaths: int = 0

    def without(self, run_ids: Iterable[str]) -> Self:
        """Return the job of those runs that are left."""
        gone = set(run_ids)
        return replace(self, specs=tuple(s for s in self.specs if s.run_id not in gone))

    def after_death(self, batch_size: int) -> Self | None:
        """Return the job for another worker: as it was once, then smaller; None at the end."""
        again = replace(self, deaths=self.deaths + 1)
        if again.deaths == 1:
            return again
        return again.smaller(batch_size) if again.deaths <= MOST_DEATHS else None

    def smaller(self, batch_size: int) -> Self | None:
        """Return the job with less memory: alone, then in half as large pieces; None at the end."""
        if not self.alone:
            return replace(self, alone=True)
        if 2 * self.micro_batches > batch_size:
            return None
        return replace(self, micro_batches=2 * self.micro_batches)


class JobQueue:
    """Jobs in the order they should start. Thread-safe.

    Parameters
    ----------
    jobs : iterable of Job
    memory : mapping of str to int, bytes, optional
        What jobs in training may add together on each device; one job is always admitted.
    """

    def __init__(self, jobs: Iterable[Job], *, memory: Mapping[str, int] | None = None) -> None:
        self._waiting = list(jobs)
        self._running: list[tuple[Job, str]] = []
        self._memory = memory or {}
        self._changed = threading.Condition()

    def take(self, control: Control, *, wait: bool = True, device: str = "") -> Job | None:
        """Return the next job once there is memory for it, or None when there is none left.

        Parameters
        ----------
        control : Control
        wait : bool
            False: None where no job may start now, too.
        device : str
            Where it will train.

        Raises
        ------
        Stopped
            The sweep was cancelled.
        """
        with self._changed:
            while True:
                control.check()
                if not self._waiting:
                    return None
                if (job := self._first_that_fits(device)) is not None:
                    self._waiting.remove(job)
                    self._running.append((job, device))
                    return job
                if not wait:
                    return None
                self._changed.wait(0.1)

    def _first_that_fits(self, device: str) -> Job | None:
        here = [job for job, where in self._running if where == device]
        if any(job.alone for job in here):
            return None
        used = sum(job.bytes for job in here)
        busy = {job.specs[0].trunk_id for job, _ in self._running}
        free = self._memory.get(device)
        for job in self._waiting:
            if job.specs[0].trunk_id in busy:
                continue
            if not here:
                return job
            if job.alone:
                return None  # it waits for the rest to end, and nothing may overtake it forever
            if free is None or used + job.bytes <= free:
                return job
        return None

    def done(self, job: Job, again: Job | None = None) -> None:
        """Give back the memory of a job that was taken; `again` is what is left of it."""
        with self._changed:
            self._running.remove(next(taken for taken in self._running if taken[0] == job))
            if again is not None and again.specs:
                self._waiting.insert(0, again)
            self._changed.notify_all()

    def put(self, job: Job) -> None:
        """Add a job that goes first."""
        with self._changed:
            self._waiting.insert(0, job)
            self._changed.notify_all()

    def waiting(self) -> tuple[Job, ...]:
        """Return the jobs that nobody has taken."""
        with self._changed:
            return tuple(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)


class Executor(Protocol):
    """Trains the jobs of a queue.

    Attributes
    ----------
    name : str
    worker_bytes : int, bytes
        Memory that each worker takes besides its run's.
    shares_interpreter : bool
        Whether the workers' Python takes turns, so that a step slows the others' down.
    remote : bool
        Whether jobs train on other machines, whose memory is not this one's, and go on there
        when this process ends.
    """

    name: str
    worker_bytes: int
    shares_interpreter: bool
    remote: bool

    def workers(self, recipe: Recipe) -> int:
        """Return how many jobs train at once."""
        ...

    def pids(self) -> list[int]:
        """Return the process ids of the workers; none where they live in this process."""
        ...

    def run(
        self,
        recipe: Recipe,
        jobs: JobQueue,
        *,
        emit: Emit,
        control: Control,
        checkpointing: Checkpointing | None = None,
    ) -> None:
        """Train until the queue is empty; raise `Stopped` when `control` says so.

        `emit` may be called from any thread, by one at a time for each run.
        """
        ...


class Ended:
    """Passes events on, and remembers which runs of a job have ended."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.run_ids: set[str] = set()

    def __call__(self, event: Event) -> None:
        run = getattr(event, "run", None)
        self._emit(event)
        if run is not None:
            self.run_ids.add(run.run_id)


def work_off(
    recipe: Recipe,
    jobs: JobQueue,
    *,
    emit: Emit,
    control: Control,
    train: Callable[[Job, Emit], None],
    go_on: Callable[[], bool] = lambda: True,
    device: str = "",
) -> None:
    """Take jobs and train them until there are none; those that ran out of memory come back."""
    while go_on() and (job := jobs.take(control, device=device)) is not None:
        again: Job | None = None
        ended = Ended(emit)
        try:
            train(job, ended)
        except (OutOfMemory, WorkerDied) as error:
            rest = job.without(ended.run_ids)
            less = rest.after_death if isinstance(error, WorkerDied) else rest.smaller
            again = less(recipe.batch_size)
            if again is None:
                for spec in rest.specs:
                    emit(failed(spec, error))
        finally:
            jobs.done(job, again)
