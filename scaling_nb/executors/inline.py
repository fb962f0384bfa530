"""One job after another on the calling thread."""

from __future__ import annotations

from collections.abc import Callable

from ..events import Event
from ..training.devices import use_one_thread
from ..training.recipe import Recipe
from ..training.trunk import train_trunk
from .base import JobQueue


class InlineExecutor:
    """Trains one job at a time, in order: for tests, and where nothing else will do."""

    name = "inline"

    def workers(self, recipe: Recipe) -> int:
        """Return 1."""
        return 1

    def run(
        self,
        recipe: Recipe,
        jobs: JobQueue,
        *,
        emit: Callable[[Event], None],
        check: Callable[[], None],
    ) -> None:
        """Train until the queue is empty; raise `Stopped` when `check` does."""
        with use_one_thread():
            while (job := jobs.take()) is not None:
                train_trunk(recipe, job, emit=emit, check=check)
