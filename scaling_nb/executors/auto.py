"""Which executor suits a recipe on this machine, and why."""

from __future__ import annotations

import os

import torch

from ..errors import SweepError
from ..training.devices import CONTEXT_BYTES, cpu_count, free_memory, worker_devices
from ..training.memory import MEMORY_MARGIN
from ..training.recipe import Recipe
from .base import MEMORY_SHARE, Executor
from .payload import pickle_recipe
from .pool import WORKER_BYTES
from .processes import ProcessExecutor
from .threads import ThreadExecutor

_FULL_STEP = 5e11
"""FLOP of a step that takes a large GPU as long as it takes the host to give the next its work."""
_MOST_ON_A_GPU = 8
_HOST_BYTES = 2 * 2**30
"""Room in the host's memory for each process that uses a GPU."""


def choose_executor(
    recipe: Recipe, largest_run: int = 0, largest_step: float | None = None
) -> tuple[Executor, str]:
    """Return threads or worker processes, and the reason in words.

    Parameters
    ----------
    recipe : Recipe
    largest_run : int, bytes
        What the largest run adds to memory.
    largest_step : float, FLOP
        Of one step of the largest model; None where it is not known yet.
    """
    if recipe.device.type == "cuda" and recipe.devices == 1 and largest_step is not None:
        return _on_gpus(recipe, largest_run, largest_step)
    if recipe.device.type != "cpu":
        return ThreadExecutor(), "a GPU does the work, and one thread keeps each busy"
    n = recipe.default_workers
    if n == 1:
        return ThreadExecutor(), "there is one core"
    if why := _stays_here(recipe):
        return ThreadExecutor(), why
    needed = n * (WORKER_BYTES + round(MEMORY_MARGIN * largest_run))
    free = round(MEMORY_SHARE * free_memory(recipe.device))
    if needed > free:
        return ThreadExecutor(), (
            f"{n} processes would need {needed / 2**20:.0f} MB of {free / 2**20:.0f} MB that may "
            "be used"
        )
    return ProcessExecutor(), f"{n} cores, and each process runs its own Python"


def _on_gpus(recipe: Recipe, largest_run: int, largest_step: float) -> tuple[Executor, str]:
    """Choose for a recipe whose runs train on one GPU each.

    A small model leaves a GPU waiting for its host. Eight processes that shared an H200 trained
    models of .06 to .8 M parameters 4.5 times as fast as one thread (``benchmarks/gpu.py``).
    """
    gpus = worker_devices(recipe.device)
    if largest_step > _FULL_STEP:
        return ThreadExecutor(), (
            f"a GPU is kept busy by one thread: a step is up to {largest_step:.2g} FLOP"
        )
    if why := _stays_here(recipe):
        return ThreadExecutor(), why
    room = MEMORY_SHARE * min(map(free_memory, gpus))
    host = MEMORY_SHARE * free_memory(torch.device("cpu"))
    each = min(
        _MOST_ON_A_GPU,
        cpu_count() // len(gpus),
        int(room / (CONTEXT_BYTES + MEMORY_MARGIN * largest_run)),
        int(host / (len(gpus) * _HOST_BYTES)),
    )
    if each < 2:
        return ThreadExecutor(), "cores or memory do not suffice for two processes on a GPU"
    return ProcessExecutor(each * len(gpus)), (
        f"steps of at most {largest_step:.2g} FLOP leave a GPU waiting, so {each} processes "
        "share each"
    )


def _stays_here(recipe: Recipe) -> str:
    """Return why a recipe cannot or must not go to worker processes; empty if it can."""
    if os.environ.get("SCALING_NB_NO_PROCESSES"):
        return "SCALING_NB_NO_PROCESSES is set"
    try:
        pickle_recipe(recipe, lambda buffer: None)
    except SweepError as error:
        return str(error)
    return ""
