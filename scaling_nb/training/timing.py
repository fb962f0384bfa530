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
from .devices import DeviceMemory, on_device, power_limit, use_one_thread, worker_devices
from .memory import MEMORY_MARGIN, Sized, run_bytes
from .trainer import Trainable, Trainer

_WARM_STEPS = 3
_LEAST_STEPS = 8
_ENOUGH_SECONDS = 0.5
_PIECE_SECONDS = 0.05
"""A GPU is waited for after so long, not after each step: in training the host runs ahead."""


class Measured(Trainable, Sized, Protocol):
    """What a measurement asks of a recipe."""

    @property
    def devices(self) -> int: ...


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
    devices = worker_devices(recipe.device, recipe.devices)
    places = [devices[i % len(devices)] for i in range(workers)]
    together = Barrier(workers)
    on_gpu = recipe.device.type == "cuda"
    gc.collect()
    memory = DeviceMemory(devices[:workers]) if on_gpu else None
    with ThreadPoolExecutor(workers) as pool, _busy_cores(0 if on_gpu else beside):
        costs = list(
            pool.map(lambda i: _measure(recipe, value, lr, i, places[i], together), range(workers))
        )
    gc.collect()
    peaks = memory.taken(but=memory.kept()) if memory else []
    steps = [s for cost in costs for s in cost[0]]
    quartiles = statistics.quantiles(steps, n=4)
    return StepCost(
        step_seconds=quartiles[1],
        step_spread=(quartiles[0], quartiles[2]),
        eval_seconds=statistics.median(cost[1] for cost in costs),
        # Of the workers that share a device, each has its share of the peak.
        peak_bytes=max(
            round(taken / places.count(device))
            for device, taken in zip(devices, peaks, strict=False)
        )
        if memory
        else round(MEMORY_MARGIN * run_bytes(recipe, value)),
        snapshot_bytes=max(cost[2] for cost in costs) if on_gpu else 0,
        watts=power_limit(places[0]) if on_gpu else None,
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
    recipe: Trainable,
    value: int | float,
    lr: float | None,
    seed: int,
    device: torch.device,
    together: Barrier,
) -> tuple[list[float], float, int]:
    """Return the seconds of steps, those of an evaluation, and the bytes that a snapshot keeps."""
    on_gpu = device.type == "cuda"
    with use_one_thread(), on_device(device):
        trainer = Trainer(recipe, value, seed=seed, lr=lr, device=device)
        trainer.train(_WARM_STEPS, 10**6, report=lambda piece: None)
        together.wait()
        seconds: list[float] = []
        at_once, spent = 1, 0.0
        while len(seconds) < _LEAST_STEPS or spent < _ENOUGH_SECONDS:
            began = time.perf_counter()
            trainer.train(trainer.step + at_once, 10**6, report=lambda piece: None)
            took = time.perf_counter() - began
            seconds.append(took / at_once)
            spent += took
            if on_gpu and len(seconds) == 1:
                at_once = max(1, round(_PIECE_SECONDS / took))
        if on_gpu:
            trainer.evaluate()  # the first loads kernels
        began = time.perf_counter()
        trainer.evaluate()
        took = time.perf_counter() - began
        return seconds[1:] if at_once > 1 else seconds, took, trainer.snapshot_bytes
