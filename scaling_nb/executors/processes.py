"""Worker processes: one per core or GPU, each with one torch thread and an interpreter of its own.

For small models most of a step is Python, and one interpreter runs one thread's Python at a time:
processes train them faster than threads do.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path

from ..training.control import Control, Stopped
from ..training.devices import worker_devices
from ..training.recipe import Recipe
from .base import Checkpointing, Emit, Job, JobQueue, WorkerDied, work_off
from .messages import Outcome, Task
from .payload import write_recipe
from .pool import POOL, WORKER_BYTES, WorkerProcess, forward


class ProcessExecutor:
    """Trains one job per worker process; the processes stay for the next sweep.

    A worker that dies is replaced and its job goes on from its checkpoint, with less and less
    memory (see :meth:`Job.after_death`), as that is what most of them die of.

    Parameters
    ----------
    n_workers : int, optional
        None: one per GPU, or one per core.
    """

    name = "processes"
    worker_bytes = WORKER_BYTES
    shares_interpreter = False
    remote = False

    def __init__(self, n_workers: int | None = None) -> None:
        self.n_workers = n_workers

    def workers(self, recipe: Recipe) -> int:
        """Return how many jobs train at once."""
        return self.n_workers or recipe.default_workers

    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        return POOL.pids()

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
        n = min(self.workers(recipe), len(jobs))
        if n == 0:
            return
        POOL.warm(n)
        folder = Path(tempfile.mkdtemp(prefix="scaling_nb-"))
        errors: list[BaseException] = []

        def work(device: str) -> None:
            driver = _Driver(folder, device, control, checkpointing)
            try:
                work_off(
                    recipe,
                    jobs,
                    emit=emit,
                    control=control,
                    train=driver.train,
                    go_on=lambda: not errors,
                    device=device,
                )
            except BaseException as error:
                errors.append(error)
            finally:
                driver.release()

        try:
            write_recipe(recipe, folder)
            devices = worker_devices(recipe.device, recipe.devices)
            threads = [
                threading.Thread(
                    target=work, args=(str(devices[i % len(devices)]),), name=f"driver-{i}"
                )
                for i in range(n)
            ]
            for thread in threads:
                thread.daemon = True
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if errors:
            raise errors[0]


class _Driver:
    """One thread's side of one worker process."""

    def __init__(
        self, folder: Path, device: str, control: Control, checkpointing: Checkpointing | None
    ) -> None:
        self._folder, self._device = folder, device
        self._control, self._checkpointing = control, checkpointing
        self._worker: WorkerProcess | None = None

    def train(self, job: Job, emit: Emit) -> None:
        """Have the worker train a job, passing on its events; raise what it raised."""
        worker = self._worker = self._worker or POOL.borrow()
        task = Task(
            recipe=self._folder,
            job=job,
            device=self._device,
            checkpointing=self._checkpointing,
            orders=self._control.orders,
        )
        stop_listening = None
        try:
            worker.send(task)
            stop_listening = self._control.listen(lambda orders: forward(worker, orders))
            while not isinstance(reply := worker.receive(), Outcome):
                if reply != "ready":
                    self._pass_on(reply, emit)
        except _SinkFailed as error:
            raise error.args[0] from None
        except (EOFError, OSError) as error:
            last_words = worker.last_words() or str(error)
            self._discard()
            raise WorkerDied(
                f"the worker process ended ({last_words}); most often its memory ran out"
            ) from None
        finally:
            if stop_listening is not None:
                stop_listening()
        if reply.kind == "stopped":
            raise Stopped("stopped by the user")
        if reply.error is not None:
            raise reply.error

    def _pass_on(self, event: object, emit: Emit) -> None:
        try:
            emit(event)  # type: ignore[arg-type]
        except BaseException as error:
            # Nobody hears the worker any more. Not an OSError here: that would be its death.
            self._discard()
            raise _SinkFailed(error) from error

    def _discard(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def release(self) -> None:
        """Give the worker back for the next sweep."""
        if self._worker is not None:
            POOL.give_back(self._worker)
            self._worker = None


class _SinkFailed(Exception):
    """Carries an error of the event sink past the handlers of a worker's death."""
