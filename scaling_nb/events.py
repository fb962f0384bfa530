"""What happens in a sweep, as frozen events, and the signal that carries them to observers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .records import Run, RunSpec

_log = logging.getLogger(__name__)
E_ = TypeVar("E_")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run is about to take steps: its first, or those after its checkpoint.

    Its curve begins anew either way: what the run has trained before follows as `StepLogged`.

    Attributes
    ----------
    where : str
        Device it trains on, after its machine where that is another: ``10.0.0.3 cuda:1``.
    """

    spec: RunSpec
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLogged:
    """A piece of one run's training curve.

    Attributes
    ----------
    tokens : ndarray of int64, shape (n_steps,)
        Tokens seen after each step.
    loss : ndarray of float32, shape (n_steps,), nats per token
        Training loss of each step.
    """

    run_id: str
    tokens: NDArray[np.int64]
    loss: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """A run trained all its tokens and was evaluated."""

    run: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """A run ended early: ``run.status`` says how, ``run.message`` why."""

    run: Run
    traceback: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """Something a person may want to know, such as that a machine was lost; all goes on.

    Attributes
    ----------
    message : str
    waiting : tuple of run_id
        Runs that trained there, and wait for another place.
    """

    message: str
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageFailed:
    """Something could not be written; nothing is lost, but the sweep should wait."""

    message: str


Event = RunStarted | StepLogged | RunFinished | RunFailed | Noted | StorageFailed


class Signal(Generic[E_]):
    """Calls its observers in order; one that raises is logged and never stops the sender.

    Safe to connect, disconnect and send from any thread. Observers run on the sender's thread,
    so they take a lock, enqueue, and return.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._observers: tuple[Callable[[E_], object], ...] = ()

    def connect(self, observer: Callable[[E_], object]) -> Callable[[], None]:
        """Call `observer` for every value sent from now on; returns a function that stops it."""
        with self._lock:
            self._observers = (*self._observers, observer)

        def disconnect() -> None:
            with self._lock:
                self._observers = tuple(o for o in self._observers if o is not observer)

        return disconnect

    def send(self, value: E_) -> None:
        """Call every observer with `value`."""
        for observer in self._observers:
            try:
                observer(value)
            except Exception:
                _log.exception("an observer of the sweep raised; training goes on")
