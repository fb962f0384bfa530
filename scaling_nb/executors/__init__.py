"""How runs are trained: one file an executor."""

from ..errors import SweepError
from .base import Checkpointing, Executor, Job, JobQueue
from .inline import InlineExecutor
from .threads import ThreadExecutor

__all__ = [
    "Checkpointing",
    "Executor",
    "InlineExecutor",
    "Job",
    "JobQueue",
    "ThreadExecutor",
    "make_executor",
]

EXECUTORS: dict[str, type[Executor]] = {"inline": InlineExecutor, "threads": ThreadExecutor}


def make_executor(choice: str | Executor) -> Executor:
    """Return the executor that a name stands for, or the object itself."""
    if not isinstance(choice, str):
        return choice
    if choice not in EXECUTORS:
        raise SweepError(
            f"executor {choice!r} is unknown. Choose one of "
            f"{', '.join(map(repr, EXECUTORS))}, or give an object."
        )
    return EXECUTORS[choice]()
