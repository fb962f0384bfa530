"""A worker process: takes jobs over a pipe, trains them with one torch thread, tells what happens.

The pipe's address is its argument, and the pipe's key comes on stdin. It ends when its driver
goes away, whatever the reason.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from multiprocessing.connection import Client, Connection
from pathlib import Path

from ..training.control import Control, Orders, Stopped
from ..training.outcomes import OutOfMemory
from ..training.recipe import Recipe
from .job import train_job
from .messages import Message, Outcome, Reply, Task
from .payload import read_recipe


class Worker:
    """The worker's side of the pipe: one thread reads it, the main thread trains."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._tasks: list[Task] = []
        self._came = threading.Condition()
        self.control = Control()
        self._recipes: dict[Path, Recipe] = {}

    def send(self, reply: Reply) -> None:
        """Send one reply; whole, whichever thread sends."""
        with self._sending:
            self._connection.send(reply)

    def listen(self) -> None:
        """Take what the driver sends until it goes away, and with it this process."""
        while True:
            try:
                message: Message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(0)
            if message is None:
                os._exit(0)
            if isinstance(message, Orders):
                self.control.put(message)
                continue
            with self._came:
                self.control.put(message.orders)
                self._tasks.append(message)
                self._came.notify()

    def work(self) -> None:
        """Train one task after another."""
        while True:
            with self._came:
                self._came.wait_for(lambda: bool(self._tasks))
                task = self._tasks.pop(0)
            self.send(self.train(task))

    def train(self, task: Task) -> Outcome:
        """Train one task; returns how it ended."""
        import torch

        outcome = self._train(task)
        # Other workers of the same GPU cannot use what this one's allocator keeps. After some
        # faults nothing works on a GPU any more, and what the job said then must not be lost.
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()
        return outcome

    def _train(self, task: Task) -> Outcome:
        import torch

        try:
            if task.recipe not in self._recipes:
                self._recipes = {task.recipe: read_recipe(task.recipe)}
            train_job(
                self._recipes[task.recipe],
                task.job,
                emit=self.send,
                control=self.control,
                checkpointing=task.checkpointing,
                device=torch.device(task.device),
            )
        except Stopped:
            return Outcome(kind="stopped")
        except OutOfMemory as error:
            # Made anew: the old one's traceback holds the job, and with it the memory.
            return Outcome(kind="memory", error=OutOfMemory(str(error)))
        except Exception as error:
            return Outcome(kind="error", error=sendable(error))
        return Outcome(kind="done")


def sendable(error: Exception) -> Exception:
    """Return an error that the driver's process can read, whoever defined its class.

    As it is read there: without a traceback, which holds the job, and with it its memory.
    """
    import pickle

    try:
        read = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return read if isinstance(read, Exception) else RuntimeError(str(error))


def main(address: str) -> None:
    """Connect, import what takes long, and work."""
    serve(Worker(connect(address)))


def connect(address: str) -> Connection:
    """Return the pipe to the driver; its key comes on stdin."""
    key = bytes.fromhex(sys.stdin.readline().strip())
    return Client(address, authkey=key)


def serve(worker: Worker) -> None:
    """Work on the main thread until the driver goes away."""
    import torch

    torch.set_num_threads(1)
    torch.zeros(1).add_(1)
    threading.Thread(target=worker.listen, name="listener", daemon=True).start()
    worker.send("ready")
    worker.work()
