"""What a step costs here and now: seconds and memory, measured on real steps."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread
from typing import Protocol

import torch

from ..cost import StepCost
from .devices import use_one_thread
from .memory import MEMORY_MARGIN, Sized, run_bytes
from .trainer import Trainable, Trainer

_WARM_STEPS = 3
_LEAST_STEPS = 8
_ENOUGH_SECONDS = 0.5


class Measured(Trainable, Sized, Protocol):
    """What a measurement asks of a recipe."""


def measure_step(
    recipe: Measured, value: int | float, *, lr: float | None, workers: int = 1, beside: int = 0
) -> StepCost:
    """Time real steps of one size with `workers` training at once; nothing of it is kept.

    Memory is read from the device's allocator on a GPU. On a CPU it is counted: what a process
    gave back is used again, so that its growth says little of what a run needs.

    Parameters
    ----------
    beside : int
        Cores that other processes will keep busy meanwhile.
    """
    workers = 1 if recipe.probed.draws_random else workers
    together = Barrier(workers)
    beside = beside if recipe.device.type == "cpu" else 0
    with ThreadPoolExecutor(workers) as pool, _busy_cores(beside):
        costs = list(pool.map(lambda i: _measure(recipe, value, lr, i, together), range(workers)))
    steps = [s for cost in costs for s in cost[0]]
    quartiles = statistics.quantiles(steps, n=4)
    on_gpu = recipe.device.type == "cuda"
    return StepCost(
        step_seconds=quartiles[1],
        step_spread=(quartiles[0], quartiles[2]),
        eval_seconds=statistics.median(cost[1] for cost in costs),
        peak_bytes=max(cost[2] for cost in costs)
        if on_gpu
        else round(MEMORY_MARGIN * run_bytes(recipe, value)),
    )


@contextlib.contextmanager
def _busy_cores(n: int) -> Iterator[None]:
    """Keep cores busy with products that leave Python alone, as other processes would.

    A core by itself is faster than one whose neighbours work: they share caches and clock.
    """
    end = Event()

    def work() -> None:
        with use_one_thread():
            a = torch.ones(_PRODUCT, _PRODUCT)
            b = torch.empty_like(a)
            while not end.is_set():
                torch.mm(a, a, out=b)

    threads = [Thread(target=work, name=f"busy-{i}", daemon=True) for i in range(n)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()


_PRODUCT = 768
"""Rows of a product: some milliseconds in which the interpreter is free."""


def _measure(
    recipe: Trainable, value: int | float, lr: float | None, seed: int, together: Barrier
) -> tuple[list[float], float, int]:
    on_gpu = recipe.device.type == "cuda"
    with use_one_thread():
        gc.collect()
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(recipe.device)
        before = torch.cuda.memory_allocated(recipe.device) if on_gpu else 0
        trainer = Trainer(recipe, value, seed=seed, lr=lr)
        trainer.train(_WARM_STEPS, 10**6, report=lambda piece: None)
        together.wait()
        seconds: list[float] = []
        while len(seconds) < _LEAST_STEPS or sum(seconds) < _ENOUGH_SECONDS:
            began = time.perf_counter()
            trainer.train(trainer.step + 1, 10**6, report=lambda piece: None)
            seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        trainer.evaluate()
        took = time.perf_counter() - began
        most = torch.cuda.max_memory_allocated(recipe.device) if on_gpu else 0
        return seconds, took, most - before
