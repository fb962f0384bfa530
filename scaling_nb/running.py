"""The sweeps that train in this process: found when a cell is run again, ended before it exits."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from pathlib import Path
from typing import Protocol

from .errors import SweepError
from .plan import SweepPlan
from .store import RunStore

_LOCK = threading.Lock()
_RUNNING: list[Running] = []


class Running(Protocol):
    """What is asked of a sweep here."""

    plan: SweepPlan
    sweep_id: str
    store: RunStore

    def leave(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...


def store_path(store: str | os.PathLike[str] | RunStore) -> Path:
    """Return where a store is, or will be."""
    return (store.path if isinstance(store, RunStore) else Path(store)).resolve()


def find_running(path: Path, plan_id: str) -> Running | None:
    """Return the sweep that trains a plan, as it was first or as it is, in this store; or None."""
    with _LOCK:
        sweeps = list(_RUNNING)
    for sweep in sweeps:
        if store_path(sweep.store) == path and plan_id in (sweep.sweep_id, sweep.plan.plan_id):
            return sweep
    return None


def register(sweep: Running) -> None:
    """Note that a sweep trains; it is left before the interpreter goes.

    Its threads must not outlive the interpreter inside torch.
    """
    with _LOCK:
        if not _RUNNING:
            atexit.unregister(_cancel_all)
            atexit.register(_cancel_all)
        _RUNNING.append(sweep)


def unregister(sweep: Running) -> None:
    """Note that a sweep has ended."""
    with _LOCK:
        _RUNNING[:] = [other for other in _RUNNING if other is not sweep]


def _cancel_all() -> None:
    with _LOCK:
        sweeps = list(_RUNNING)
    for sweep in sweeps:
        sweep.leave()
    for sweep in sweeps:
        # Whoever waited for it has heard of its failure.
        with contextlib.suppress(SweepError):
            sweep.wait(timeout=10)
