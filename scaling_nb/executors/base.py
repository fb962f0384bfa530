"""What an executor is: it takes jobs until there are none, and tells what happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from ..events import Event
from ..records import RunSpec
from ..training.recipe import Recipe

Job = tuple[RunSpec, ...]
"""Runs of one training trunk, shortest first."""


class JobQueue:
    """Jobs in the order they should start. Thread-safe."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = list(jobs)[::-1]
        self._lock = threading.Lock()

    def take(self) -> Job | None:
        """Return the next job, or None when there is none left."""
        with self._lock:
            return self._jobs.pop() if self._jobs else None

    def __len__(self) -> int:
        return len(self._jobs)


class Executor(Protocol):
    """Trains the jobs of a queue.

    Attributes
    ----------
    name : str
    """

    name: str

    def workers(self, recipe: Recipe) -> int:
        """Return how many jobs train at once."""
        ...

    def run(
        self,
        recipe: Recipe,
        jobs: JobQueue,
        *,
        emit: Callable[[Event], None],
        check: Callable[[], None],
    ) -> None:
        """Train until the queue is empty; raise `Stopped` when `check` does.

        `emit` and `check` may be called from any thread.
        """
        ...
