"""Measure the sweep engine against what a person would write: a plain loop over the same runs.

    python benchmarks/sweep.py [--share 0.03] [--rounds 3] [--only race|store|estimate]

The quick-start's sizes at a share of its budgets; contestants take turns, and ratios are medians
over rounds, each against the plain loop of its own round. Do it on an idle machine: the load is
printed with the result.

Two more tables follow: what streaming and storing cost, as CPU time of the same runs with and
without a store, in turns; and what ``sweep.estimate()`` foresaw against what the sweep then took,
as the store keeps both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from scaling_nb import ScalingWarning, Sweep, SweepPlan, plan_sweep
from scaling_nb.executors import InlineExecutor, Job, JobQueue, warm_workers
from scaling_nb.quickstart import BUDGETS, quickstart_recipe
from scaling_nb.schedule import order_jobs
from scaling_nb.training.batches import TokenWindows, move
from scaling_nb.training.control import Control
from scaling_nb.training.devices import cpu_count, use_one_thread
from scaling_nb.training.recipe import Recipe
from scaling_nb.training.schedules import lr_factor

CPU = torch.device("cpu")
CROSS_ENTROPY = torch.nn.functional.cross_entropy


class Windows(Dataset):
    """Windows of a token array, one sample at a time, as most people's data comes."""

    def __init__(self, source: TokenWindows) -> None:
        self.source = source

    def __len__(self) -> int:
        return self.source.n_windows

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = i * self.source.context
        window = torch.tensor(self.source.tokens[start : start + self.source.context + 1]).long()
        return window[:-1], window[1:]


def train_plainly(recipe: Recipe, plan: SweepPlan, *, loader: bool) -> None:
    """Train one run after another with torch's default threads: ten lines of ordinary PyTorch."""
    for spec in plan.runs:
        model = recipe.build(spec.size).to(recipe.device)
        ours = recipe.build_optimizer(model, spec.lr)
        # The same rule of learning rates, in torch's own default implementation of AdamW.
        groups = [{k: g[k] for k in ("params", "lr", "weight_decay")} for g in ours.param_groups]
        optimizer = torch.optim.AdamW(groups, betas=ours.defaults["betas"])
        peaks = [group["lr"] for group in optimizer.param_groups]
        if loader:
            windows = DataLoader(Windows(recipe.data.source), recipe.batch_size, shuffle=True)
            batches = (batch for _ in range(1000) for batch in windows)
        else:
            batches = recipe.data.source.batches(spec.seed)
        losses = []
        for step in range(spec.n_steps):
            x, y = move(next(batches), recipe.device)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * lr_factor("wsd", step, spec.n_steps, recipe.warmup_steps)
            loss = CROSS_ENTROPY(model(x).flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            for batch in recipe.data.eval_batches:
                x, y = move(batch, recipe.device)
                CROSS_ENTROPY(model(x).flatten(0, 1), y.flatten()).item()


def sweep(recipe: Recipe, plan: SweepPlan, executor: str) -> None:
    """Train the plan with an executor, storing everything."""
    with tempfile.TemporaryDirectory() as folder:
        made = Sweep(recipe, plan, store=Path(folder) / "runs.db", executor=executor).start()
        made.wait()
        assert made.state == "finished"
        made.store.close()


def train_and_store_nothing(recipe: Recipe, plan: SweepPlan) -> None:
    """Train the plan as the inline executor does, and let nobody hear of it."""
    jobs = JobQueue(Job(specs=specs) for specs, _ in order_jobs(plan.jobs()))
    InlineExecutor().run(recipe, jobs, emit=lambda event: None, control=Control())


def cost_of_storing(recipe: Recipe, plan: SweepPlan, rounds: int) -> None:
    """Print the CPU time of one sweep with its store, its curves and its lease, and without."""
    shares = []
    for _ in range(rounds):
        bare = cpu_timed(lambda: train_and_store_nothing(recipe, plan))
        stored = cpu_timed(lambda: sweep(recipe, plan, "inline"))
        shares.append(stored / bare - 1)
        print(f"storing: {stored:.2f} s of CPU, without {bare:.2f} s, {shares[-1]:+.1%}")
    print(f"storing costs {statistics.median(shares):+.1%} (median of {rounds})")


def foreseen_and_taken(recipe: Recipe, plan: SweepPlan, rounds: int) -> None:
    """Print what the engine foresaw of a sweep, and what it took: targets are 15% and 20%."""
    print("| executor | foreseen, s | taken, s | | foreseen, MB | taken, MB | |")
    print("|---|---|---|---|---|---|---|")
    for executor in ("threads", "processes"):
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                made = Sweep(recipe, plan, store=Path(folder) / "runs.db", executor=executor)
                made.estimate()
                made.start().wait()
                predicted, actual = made.costs()
                made.store.close()
            assert predicted is not None
            assert actual is not None
            time_off = predicted.seconds / actual.seconds - 1
            memory_off = predicted.peak_bytes / actual.peak_bytes - 1
            print(
                f"| {executor} | {predicted.seconds:.1f} | {actual.seconds:.1f} | {time_off:+.0%} "
                f"| {predicted.peak_bytes / 2**20:.0f} | {actual.peak_bytes / 2**20:.0f} "
                f"| {memory_off:+.0%} |"
            )


def cpu_timed(call: Callable[[], object]) -> float:
    """Return the CPU time of a call, all threads of this process, in seconds."""
    began = time.process_time()
    call()
    return time.process_time() - began


def peak_flops(device: torch.device = CPU) -> float:
    """Return FLOP per second of one core, or of a GPU, in a large matrix product."""
    n = 1024 if device.type == "cpu" else 8192
    a = torch.randn(n, n, device=device)

    def product() -> None:
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()

    with use_one_thread():
        best = min(timed(product) for _ in range(10))
    return 2 * n**3 / best


def timed(call: Callable[[], object]) -> float:
    """Return the wall time of a call, in seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.03)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["race", "store", "estimate"])
    options = parser.parse_args()
    warnings.simplefilter("ignore", ScalingWarning)
    recipe = quickstart_recipe()
    budgets = [options.share * budget for budget in BUDGETS]
    settings = {"tokens_per_param": (0.01, 800.0), "min_steps": 60}
    alone = plan_sweep(recipe, budgets, **settings)
    shared = plan_sweep(recipe, budgets, reuse="cooldown", **settings)
    warm_workers()
    sweep(recipe, shared, "processes")  # the workers are warm, as they are in a notebook
    print(f"load {os.getloadavg()[0]:.1f}")
    if options.only in (None, "race"):
        race(recipe, alone, shared, options.rounds)
    if options.only in (None, "store"):
        cost_of_storing(recipe, alone, options.rounds)
    if options.only in (None, "estimate"):
        foreseen_and_taken(recipe, shared, options.rounds)


def race(recipe: Recipe, alone: SweepPlan, shared: SweepPlan, rounds: int) -> None:
    """Print how long each contestant takes, and how many times faster than the plain loop."""
    contestants: dict[str, Callable[[], object]] = {
        "plain loop": lambda: train_plainly(recipe, alone, loader=False),
        "plain loop, DataLoader": lambda: train_plainly(recipe, alone, loader=True),
        "inline": lambda: sweep(recipe, alone, "inline"),
        "threads": lambda: sweep(recipe, alone, "threads"),
        "processes": lambda: sweep(recipe, alone, "processes"),
        "processes, trunks shared": lambda: sweep(recipe, shared, "processes"),
    }
    load_before = os.getloadavg()[0]
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        cpu = time.process_time()
        for name, contestant in contestants.items():
            if name == "inline":
                cpu = time.process_time()
            seconds[name].append(timed(contestant))
            if name == "inline":
                # CPU time of the work alone, spread over the cores without loss.
                ideal = (time.process_time() - cpu) / cpu_count()
                seconds.setdefault("ideal", []).append(ideal)
    peak = peak_flops() * cpu_count()
    load = f"{load_before:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(f"{len(alone.runs)} runs, {alone.total_flops:.3g} FLOP; {cpu_count()} cores, load {load}")
    print(f"peak {peak / 1e9:.0f} GFLOP/s")
    print("| | seconds | times the plain loop | GFLOP/s | of peak |\n|---|---|---|---|---|")
    for name, taken in seconds.items():
        ratios = [p / t for p, t in zip(seconds["plain loop"], taken, strict=True)]
        flops = (shared if "shared" in name else alone).trained_flops / statistics.median(taken)
        print(
            f"| {name} | {statistics.median(taken):.1f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {flops / 1e9:.1f} | {flops / peak:.0%} |"
        )


if __name__ == "__main__":
    main()
