"""How runs are trained: one file an executor.

Names arrive lazily: the host that a cluster starts is one of these files, and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auto import choose_executor
    from .base import Checkpointing, Executor, Job, JobQueue
    from .inline import InlineExecutor
    from .pool import warm_workers
    from .processes import ProcessExecutor
    from .ray import RayExecutor
    from .registry import EXECUTORS, make_executor, settle, warm_up
    from .threads import ThreadExecutor

_HOME = {
    "EXECUTORS": "registry",
    "Checkpointing": "base",
    "Executor": "base",
    "InlineExecutor": "inline",
    "Job": "base",
    "JobQueue": "base",
    "ProcessExecutor": "processes",
    "RayExecutor": "ray",
    "ThreadExecutor": "threads",
    "choose_executor": "auto",
    "make_executor": "registry",
    "settle": "registry",
    "warm_up": "registry",
    "warm_workers": "pool",
}

__all__ = [
    "EXECUTORS",
    "Checkpointing",
    "Executor",
    "InlineExecutor",
    "Job",
    "JobQueue",
    "ProcessExecutor",
    "RayExecutor",
    "ThreadExecutor",
    "choose_executor",
    "make_executor",
    "settle",
    "warm_up",
    "warm_workers",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
