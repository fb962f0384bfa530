"""What a Ray worker does: it trains one job and reports to the host, one message at a time."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SweepError
from ..events import Event, RunStarted
from ..training.control import NO_ORDERS, Orders, Released, ReleasingControl, Stopped
from ..training.outcomes import OutOfMemory
from .base import Checkpointing, Job
from .messages import Outcome

if TYPE_CHECKING:
    from ..training.recipe import Recipe

SMALL = 64 * 2**20
"""Bytes up to which an array is copied out of shared memory, so that user code may change it."""

GATHER_SECONDS = 0.02
"""How long events wait for others to go with them."""

QUIET_SECONDS = 0.05
"""A job that takes no longer tells nothing before its end, when all goes with its outcome."""

_RECIPES: dict[str, Recipe] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RayTask:
    """One attempt at a job.

    Attributes
    ----------
    job : Job
    number, attempt : int
        The host's number of the job, and which attempt this is: only the newest is listened to.
    recipe_id : str
    device : str
    checkpointing : Checkpointing or None
    orders : Orders
        Those in force as the task is submitted.
    path : tuple of str
        The driver's import path, for what is installed on all machines at the same place.
    """

    job: Job
    number: int
    attempt: int
    recipe_id: str
    device: str
    checkpointing: Checkpointing | None
    orders: Orders
    path: tuple[str, ...]


def get_ready() -> None:
    """Import on this worker what training needs, which takes seconds."""
    from . import job  # noqa: F401


def train_remotely(task: RayTask, payload: list[Any], host: Any) -> tuple[Outcome, list[Event]]:
    """Train a job on this worker; returns how it ended, and what is still to be told.

    Runs as a Ray task. A job of a few steps sends no message: all goes with its outcome.

    Parameters
    ----------
    task : RayTask
    payload : list of one reference
        To the pickled recipe and its buffers.
    host : actor handle
        See :class:`scaling_nb.executors.ray_host.Host`.
    """
    import torch

    torch.set_num_threads(1)
    where = _where()
    try:
        recipe = _recipe(task, payload, where)
    except SweepError as error:
        return Outcome(kind="error", error=error), []
    line = HostLine(task, host, where)
    try:
        line.train(recipe)
        outcome = Outcome(kind="done")
    except Stopped:
        outcome = Outcome(kind="stopped")
    except Released:
        outcome = Outcome(kind="released")
    except OutOfMemory as error:
        outcome = Outcome(kind="memory", error=error)
    finally:
        rest = line.close()
    return outcome, rest


@cache
def _where() -> str:
    """Return this machine's address in the cluster; asking takes longer than a short run."""
    import ray

    return str(ray.util.get_node_ip_address())


def _recipe(task: RayTask, payload: list[Any], where: str) -> Recipe:
    import ray

    if task.recipe_id not in _RECIPES:
        sys.path += [entry for entry in task.path if entry not in sys.path]
        pickled, buffers = ray.get(payload[0])
        try:
            found = pickle.loads(pickled, buffers=[_writable(buffer) for buffer in buffers])
        except Exception as error:
            raise SweepError(
                f"the recipe cannot be read on {where}: {type(error).__name__}: {error}. Install "
                "what it imports on every node, and keep files it maps on storage that all share; "
                "what is defined in the notebook itself travels."
            ) from None
        _RECIPES.clear()
        _RECIPES[task.recipe_id] = found
    return _RECIPES[task.recipe_id]


def _writable(buffer: Any) -> Any:
    array = np.asarray(buffer)
    return array.copy() if array.nbytes <= SMALL else array


class HostLine:
    """The line to the host: events go out in order, orders come in.

    A host that is gone, or has given the job to another attempt, ends the job here: it was saved,
    and goes on elsewhere.
    """

    def __init__(self, task: RayTask, host: Any, where: str) -> None:
        self._task, self._host, self._where = task, host, where
        self._control = ReleasingControl()
        self._control.put(task.orders)
        self._waiting: list[Event] = []
        self._changed = threading.Condition()
        self._closed = False
        self._reporter = threading.Thread(target=self._report, name="report", daemon=True)

    def train(self, recipe: Recipe) -> None:
        """Train the job; raises as :func:`train_trunk` does."""
        import torch

        from .job import train_job

        self._reporter.start()
        train_job(
            recipe,
            self._task.job,
            emit=self._emit,
            control=self._control,
            checkpointing=self._task.checkpointing,
            device=torch.device(self._task.device),
        )

    def close(self) -> list[Event]:
        """End the line; returns what has not been told."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._reporter.is_alive():
            self._reporter.join()
        return self._waiting

    def _emit(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            event = replace(event, where=f"{self._where} {event.where}")
        with self._changed:
            self._waiting.append(event)
            self._changed.notify_all()

    def _give_up(self) -> None:
        """Have training end at its next step, saved."""
        self._control.put(Orders(paused=True))
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _report(self) -> None:
        task, sent, gather = self._task, 0, GATHER_SECONDS
        with self._changed:
            if self._changed.wait_for(lambda: self._closed, timeout=QUIET_SECONDS):
                return
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._changed.wait_for(lambda: self._closed, timeout=gather):
                    return
                events, self._waiting = self._waiting, []
            sent += 1
            gather = _ask(self._host.report, task.number, task.attempt, sent, events)
            if gather is None:
                self._give_up()
                return

    def _listen(self) -> None:
        task, orders = self._task, self._task.orders
        while not self._closed:
            told = _ask(self._host.next_orders, task.number, task.attempt, orders)
            if told is None:
                self._give_up()
                return
            if told != orders and not self._closed:
                orders = told
                self._control.put(NO_ORDERS if orders == NO_ORDERS else orders)


def _ask(question: Any, *arguments: object) -> Any:
    """Return the host's answer, or None where it is gone.

    Through a future: a task that waits in ``ray.get`` counts as idle, and another would start.
    """
    import ray

    for _ in range(3):
        try:
            return question.remote(*arguments).future().result()
        except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError):
            continue
        except (ray.exceptions.RayError, CancelledError):
            return None
    return None


def import_path() -> tuple[str, ...]:
    """Return this process's import path as it travels."""
    entries: Sequence[str] = sys.path
    return tuple(entry for entry in entries if entry)
