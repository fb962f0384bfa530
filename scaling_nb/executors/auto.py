"""Which executor suits a recipe on this machine, and why."""

from __future__ import annotations

import os

from ..errors import SweepError
from ..training.devices import free_memory
from ..training.memory import MEMORY_MARGIN
from ..training.recipe import Recipe
from .base import MEMORY_SHARE, Executor
from .payload import pickle_recipe
from .pool import WORKER_BYTES
from .processes import ProcessExecutor
from .threads import ThreadExecutor


def choose_executor(recipe: Recipe, largest_run: int = 0) -> tuple[Executor, str]:
    """Return threads or worker processes, and the reason in words.

    Parameters
    ----------
    recipe : Recipe
    largest_run : int, bytes
        What the largest run adds to memory.
    """
    if recipe.device.type != "cpu":
        return ThreadExecutor(), "a GPU does the work, and one thread keeps each busy"
    n = recipe.default_workers
    if n == 1:
        return ThreadExecutor(), "there is one core"
    if os.environ.get("SCALING_NB_NO_PROCESSES"):
        return ThreadExecutor(), "SCALING_NB_NO_PROCESSES is set"
    try:
        pickle_recipe(recipe, lambda buffer: None)
    except SweepError as error:
        return ThreadExecutor(), str(error)
    needed = n * (WORKER_BYTES + round(MEMORY_MARGIN * largest_run))
    free = round(MEMORY_SHARE * free_memory(recipe.device))
    if needed > free:
        return ThreadExecutor(), (
            f"{n} processes would need {needed / 2**20:.0f} MB of {free / 2**20:.0f} MB that may "
            "be used"
        )
    return ProcessExecutor(), f"{n} cores, and each process runs its own Python"
