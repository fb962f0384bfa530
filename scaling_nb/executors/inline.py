"""One job after another on the calling thread."""

from __future__ import annotations

from ..training.control import Control
from ..training.devices import use_one_thread
from ..training.recipe import Recipe
from .base import Checkpointing, Emit, Job, JobQueue, work_off
from .job import train_job


class InlineExecutor:
    """Trains one job at a time, in order: for tests, and where nothing else will do."""

    name = "inline"
    worker_bytes = 0
    shares_interpreter = True
    remote = False

    def workers(self, recipe: Recipe) -> int:
        """Return 1."""
        return 1

    def pids(self) -> list[int]:
        """Return none: the workers live in this process."""
        return []

    def run(
        self,
        recipe: Recipe,
        jobs: JobQueue,
        *,
        emit: Emit,
        control: Control,
        checkpointing: Checkpointing | None = None,
    ) -> None:
        """Train until the queue is empty; raise `Stopped` when `control` says so."""

        def train(job: Job, tell: Emit) -> None:
            train_job(recipe, job, emit=tell, control=control, checkpointing=checkpointing)

        with use_one_thread():
            work_off(recipe, jobs, emit=emit, control=control, train=train)
