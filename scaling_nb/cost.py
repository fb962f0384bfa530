"""What a sweep will take: time, memory, energy; estimated from a few real steps."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .records import RunSpec

COOLDOWN = 0.2
"""Share of a "wsd" run's steps that cool down: what a branch trains itself (Hägele et al. 2024)."""

WATTS_PER_CORE = 15.0
"""Power of one busy CPU core with its share of memory and board: an assumption, not a reading."""

_LEAST_SPREAD = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Cost of one optimiser step of one size, and of one evaluation.

    Attributes
    ----------
    step_seconds : float, seconds
        Median over measured steps, with as many workers training at once as the sweep will have.
    step_spread : (float, float), seconds
        First and third quartile.
    eval_seconds : float, seconds
    peak_bytes : int, bytes
        Memory one run adds: weights, gradients, optimizer state and activations.
    snapshot_bytes : int, bytes
        What a trunk with several branches keeps besides, to come back to; 0 where it is counted
        in `peak_bytes`.
    watts : float or None
        Power limit of the device, where it can be read.
    """

    step_seconds: float
    step_spread: tuple[float, float]
    eval_seconds: float
    peak_bytes: int
    snapshot_bytes: int = 0
    watts: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """What a sweep will take, judged by a few steps of its smallest and largest size.

    Attributes
    ----------
    seconds : float, seconds
        Wall time with `workers` training at once.
    seconds_range : (float, float), seconds
    peak_bytes : int, bytes
        Memory all workers add together at worst.
    kwh : float, kWh
    kwh_range : (float, float), kWh
    price : float or None
        In the currency of the price that was given.
    workers : int
    watts : float
        Power of one worker that the energy was computed with.
    """

    seconds: float
    seconds_range: tuple[float, float]
    peak_bytes: int
    kwh: float
    kwh_range: tuple[float, float]
    price: float | None
    workers: int
    watts: float

    def __str__(self) -> str:
        low, high = self.seconds_range
        price = "" if self.price is None else f", {self.price:.2g} at that price"
        return (
            f"about {format_seconds(self.seconds)} ({format_seconds(low)} to "
            f"{format_seconds(high)}) with {self.workers} workers, {self.peak_bytes / 1e9:.2g} GB, "
            f"{self.kwh:.2g} kWh ({self.kwh_range[0]:.2g} to {self.kwh_range[1]:.2g} at "
            f"{self.watts:g} W a worker){price}"
        )


class Measurable(Protocol):
    """What an estimate asks of a recipe."""

    @property
    def default_workers(self) -> int: ...
    def measure_step(
        self, value: int | float, *, lr: float | None = None, workers: int = 1, beside: int = 0
    ) -> StepCost: ...


def estimate_cost(
    recipe: Measurable,
    jobs: Sequence[Sequence[RunSpec]],
    *,
    workers: int | None = None,
    watts: float | None = None,
    price_per_kwh: float | None = None,
    side_by_side: int | None = None,
    beside: int = 0,
    worker_bytes: int = 0,
    gpus: int | None = None,
) -> CostEstimate:
    """Measure the cheapest and the dearest size and estimate all jobs.

    A step of a size in between costs a + b · FLOP, the line through the two that were measured.

    Parameters
    ----------
    jobs : sequence of sequences of RunSpec
        Runs by trunk, shortest first, costliest trunk first: the order in which they start.
    side_by_side : int, optional
        Runs that are measured at once. None: as many as will train at once in one process.
    beside : int
        Cores that are kept busy meanwhile, at most as many as workers are not measured.
    worker_bytes : int, bytes
        Memory of a worker besides its run's.
    gpus : int, optional
        Devices that the workers share, where they are GPUs.
    """
    n = min(workers or recipe.default_workers, len(jobs))
    specs = [run for job in jobs for run in job]
    ends = (
        min(specs, key=lambda run: run.flops_per_token),
        max(specs, key=lambda run: run.flops_per_token),
    )
    at_once = side_by_side or n
    beside = max(0, min(beside, n - at_once))
    costs = [
        recipe.measure_step(run.size, lr=run.lr, workers=at_once, beside=beside) for run in ends
    ]
    x = [run.flops_per_token for run in ends]

    def line(flops: float, y: Sequence[float]) -> float:
        return y[0] if x[0] == x[1] else y[0] + (y[1] - y[0]) * (flops - x[0]) / (x[1] - x[0])

    def total(per_step: Sequence[float]) -> float:
        evals = [cost.eval_seconds for cost in costs]
        seconds = [
            job_steps(job) * line(job[0].flops_per_token, per_step)
            + len(job) * line(job[0].flops_per_token, evals)
            for job in jobs
        ]
        return makespan(seconds, n)

    peaks = [cost.peak_bytes for cost in costs]
    kept = [cost.snapshot_bytes for cost in costs]
    memory = [
        line(job[0].flops_per_token, peaks) + (len(job) > 1) * line(job[0].flops_per_token, kept)
        for job in jobs
    ]
    unseen = math.ceil(n / gpus) - math.ceil(at_once / gpus) if gpus else 0
    crowd = 1.0 + CROWDING * unseen
    seconds = crowd * total([cost.step_seconds for cost in costs])
    low = min(crowd * total([c.step_spread[0] for c in costs]), seconds * (1 - _LEAST_SPREAD))
    high = max(crowd * total([c.step_spread[1] for c in costs]), seconds * (1 + _LEAST_SPREAD))
    power = watts or costs[-1].watts or WATTS_PER_CORE
    drawing = min(n, gpus) if gpus else n
    kwh = [drawing * power * s / 3.6e6 for s in (seconds, low, high)]
    return CostEstimate(
        seconds=seconds,
        seconds_range=(low, high),
        peak_bytes=n * worker_bytes + round(math.fsum(heapq.nlargest(n, memory))),
        kwh=kwh[0],
        kwh_range=(kwh[1], kwh[2]),
        price=None if price_per_kwh is None else kwh[0] * price_per_kwh,
        workers=n,
        watts=power,
    )


CROWDING = 0.1
"""How much longer a step takes for each further process on its GPU: .04 to .11 each for small
models, two to eight processes and an H200 (``benchmarks/gpu.py``)."""


def job_steps(job: Sequence[RunSpec]) -> float:
    """Return the optimiser steps of one trunk and all its branches."""
    longest = max(job, key=lambda run: run.n_tokens)
    return longest.n_steps + COOLDOWN * math.fsum(r.n_steps for r in job if r is not longest)


STEP_OVERHEAD = 2e8
"""What a step costs besides its arithmetic, in FLOP: about 3 ms of a core. It only sorts jobs."""


def job_weight(job: Sequence[RunSpec]) -> float:
    """Return how long a job takes relative to others: small models pay for steps, not FLOP."""
    return job_compute(job) + STEP_OVERHEAD * job_steps(job)


def job_compute(job: Sequence[RunSpec]) -> float:
    """Return the FLOP of one trunk and all its branches."""
    return job_steps(job) * job[0].tokens_per_step * job[0].flops_per_token


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return when the last of `workers` is done that take jobs in this order as they get free."""
    busy = [0.0] * max(1, workers)
    for job in seconds:
        heapq.heappush(busy, heapq.heappop(busy) + job)
    return max(busy)


def format_seconds(seconds: float) -> str:
    """Return a duration as people say it: ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if 0 < seconds < 1:
        return "under 1 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
