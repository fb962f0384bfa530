"""A worker process: takes jobs over a pipe, trains them with one torch thread, tells what happens.

The pipe's address is its argument, and the pipe's key comes on stdin. It ends when its driver
goes away, whatever the reason.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Literal

from ..events import Event
from ..training.control import Control, Orders, Stopped
from ..training.memory import OutOfMemory
from ..training.recipe import Recipe
from .base import Checkpointing, Job, train_job
from .payload import read_recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a driver asks: train this job of the recipe in that folder.

    Attributes
    ----------
    recipe : Path
    job : Job
    device : str
    checkpointing : Checkpointing or None
    orders : Orders
        Those in force as the task is given.
    """

    recipe: Path
    job: Job
    device: str
    checkpointing: Checkpointing | None
    orders: Orders


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a task ended; ``error`` is for "error" and "memory"."""

    kind: Literal["done", "stopped", "memory", "error"]
    error: BaseException | None = None


Message = Task | Orders | None
Reply = Event | Outcome | Literal["ready"]


class Worker:
    """The worker's side of the pipe: one thread reads it, the main thread trains."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._tasks: list[Task] = []
        self._came = threading.Condition()
        self._control = Control()
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
                self._control.put(message)
                continue
            with self._came:
                self._control.put(message.orders)
                self._tasks.append(message)
                self._came.notify()

    def work(self) -> None:
        """Train one task after another."""
        while True:
            with self._came:
                self._came.wait_for(lambda: bool(self._tasks))
                task = self._tasks.pop(0)
            self.send(self._train(task))

    def _train(self, task: Task) -> Outcome:
        import torch

        try:
            if task.recipe not in self._recipes:
                self._recipes = {task.recipe: read_recipe(task.recipe)}
            train_job(
                self._recipes[task.recipe],
                task.job,
                emit=self.send,
                control=self._control,
                checkpointing=task.checkpointing,
                device=torch.device(task.device),
            )
        except Stopped:
            return Outcome(kind="stopped")
        except OutOfMemory as error:
            return Outcome(kind="memory", error=error)
        except Exception as error:
            return Outcome(kind="error", error=_sendable(error))
        return Outcome(kind="done")


def _sendable(error: Exception) -> Exception:
    """Return an error that the driver's process can read, whoever defined its class."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def main(address: str) -> None:
    """Connect, import what takes long, and work."""
    key = bytes.fromhex(sys.stdin.readline().strip())
    worker = Worker(Client(address, authkey=key))
    import torch

    torch.set_num_threads(1)
    torch.zeros(1).add_(1)
    threading.Thread(target=worker.listen, name="listener", daemon=True).start()
    worker.send("ready")
    worker.work()
