"""Executors by name, and their workers."""

from __future__ import annotations

from ..errors import SweepError
from ..training.recipe import Recipe
from .auto import choose_executor
from .base import Executor
from .inline import InlineExecutor
from .pool import POOL, warm_workers
from .processes import ProcessExecutor
from .ray import RayExecutor
from .threads import ThreadExecutor

EXECUTORS: dict[str, type[Executor]] = {
    "inline": InlineExecutor,
    "processes": ProcessExecutor,
    "ray": RayExecutor,
    "threads": ThreadExecutor,
}


def make_executor(
    choice: str | Executor,
    recipe: Recipe,
    largest_run: int = 0,
    largest_step: float | None = None,
) -> tuple[Executor, str]:
    """Return the executor that a name stands for, or the object itself, and why it was chosen.

    Parameters
    ----------
    choice : "auto", a name of `EXECUTORS`, or an Executor
    recipe : Recipe
    largest_run : int, bytes
        What the largest run adds to memory.
    largest_step : float, FLOP
        Of one step of the largest model; None where it is not known yet.
    """
    if not isinstance(choice, str):
        return choice, "as asked for"
    if choice == "auto":
        return choose_executor(recipe, largest_run, largest_step)
    if choice not in EXECUTORS:
        raise SweepError(
            f"executor {choice!r} is unknown. Choose one of 'auto', "
            f"{', '.join(map(repr, EXECUTORS))}, or give an object."
        )
    return EXECUTORS[choice](), "as asked for"


def settle() -> None:
    """Wait until workers that were warmed up are ready, before anything is timed."""
    POOL.settle()


def warm_up(choice: str | Executor, recipe: Recipe) -> None:
    """Start the workers that a sweep with this executor will want; returns at once.

    They import torch meanwhile, which takes seconds: call it before a plan is made.
    """
    executor, _ = make_executor(choice, recipe)
    if isinstance(executor, ProcessExecutor):
        warm_workers(executor.workers(recipe))
