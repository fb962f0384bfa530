"""Background threads: one per GPU; on the CPU one per core, each with one torch thread."""

from __future__ import annotations

import threading

import torch

from ..training.control import Control
from ..training.devices import use_one_thread, worker_devices
from ..training.recipe import Recipe
from .base import Checkpointing, Emit, Job, JobQueue, work_off
from .job import train_job

THREAD_BYTES = 60 * 2**20
"""What a trainer's thread keeps besides its run: a heap of its own, and scratch for kernels."""


class ThreadExecutor:
    """Trains one job per worker thread.

    Parameters
    ----------
    n_workers : int, optional
        None: one per GPU, or one per core. More than there are devices share them.
    """

    name = "threads"
    worker_bytes = THREAD_BYTES
    shares_interpreter = True
    remote = False

    def __init__(self, n_workers: int | None = None) -> None:
        self.n_workers = n_workers

    def workers(self, recipe: Recipe) -> int:
        """Return how many jobs train at once; 1 where steps draw from the global generator."""
        if recipe.probed.draws_random and recipe.device.type == "cpu":
            return 1
        return self.n_workers or recipe.default_workers

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
        """Train until the queue is empty; raise what the first failing worker raised."""
        errors: list[BaseException] = []

        def work(device: torch.device) -> None:
            def train(job: Job, tell: Emit) -> None:
                train_job(
                    recipe,
                    job,
                    emit=tell,
                    control=control,
                    checkpointing=checkpointing,
                    device=device,
                )

            try:
                # A thread's own setting: the default pool of each worker would fight the others'.
                with use_one_thread():
                    work_off(
                        recipe,
                        jobs,
                        emit=emit,
                        control=control,
                        train=train,
                        go_on=lambda: not errors,
                        device=str(device),
                    )
            except BaseException as error:
                errors.append(error)

        devices = worker_devices(recipe.device, recipe.devices)
        threads = [
            threading.Thread(
                target=work, args=(devices[i % len(devices)],), name=f"trainer-{i}", daemon=True
            )
            for i in range(min(self.workers(recipe), max(1, len(jobs))))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
