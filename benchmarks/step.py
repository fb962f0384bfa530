"""Measure what one step of a small model is made of: arithmetic, and what is not.

    python benchmarks/step.py [--steps 300]

Each phase of a step of the quick-start's GPT is timed on one core, medians over steps; on a GPU,
where there is one, each phase is waited for, as training never does. Arithmetic
is what the step's counted FLOP would take at the measured peak of a large matrix product; the
kernels are the calls into torch's operators, counted by its profiler.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from sweep import peak_flops
from torch import nn
from torch.profiler import ProfilerActivity, profile

from scaling_nb.quickstart import quickstart_recipe
from scaling_nb.training.batches import move
from scaling_nb.training.devices import use_one_thread
from scaling_nb.training.recipe import Recipe
from scaling_nb.training.trainer import Trainer

PHASES = ("batch", "forward", "backward", "clip", "optimizer")


def phases_of(recipe: Recipe, width: int, steps: int) -> dict[str, float]:
    """Return the median seconds of each phase of a step."""
    trainer = Trainer(recipe, width, seed=0, lr=None)
    batches = recipe.data.source.batches(0)
    seconds: dict[str, list[float]] = {name: [] for name in PHASES}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = call()
        if recipe.device.type == "cuda":
            torch.cuda.synchronize()
        seconds[name].append(time.perf_counter() - began)
        return result

    def update() -> None:
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)

    def step() -> None:
        batch = timed("batch", lambda: move(next(batches), recipe.device))
        loss = timed("forward", lambda: recipe.loss(trainer.model, batch))
        timed("backward", loss.backward)
        timed("clip", lambda: nn.utils.clip_grad_norm_(trainer.parameters, 1.0))
        timed("optimizer", update)

    for _ in range(steps):
        step()
    return {name: statistics.median(taken[steps // 10 :]) for name, taken in seconds.items()}


def kernels_of(recipe: Recipe, width: int) -> int:
    """Return how many of torch's operators one step calls."""
    trainer = Trainer(recipe, width, seed=0, lr=None)
    trainer.train(3, 100, report=lambda piece: None)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        trainer.train(4, 100, report=lambda piece: None)
    return sum(event.count for event in seen.key_averages() if event.key.startswith("aten::"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    recipe = quickstart_recipe()
    with use_one_thread():
        peak = peak_flops(recipe.device)
        print(f"{recipe.device}, peak {peak / 1e9:.0f} GFLOP/s, load {os.getloadavg()[0]:.1f}")
        names = " | ".join(f"{phase}, ms" for phase in PHASES)
        print(f"| width | {names} | step, ms | arithmetic | kernels |")
        print("|---|" + "---|" * (len(PHASES) + 3))
        for width in (8, 16, 32, 64):
            took = phases_of(recipe, width, options.steps)
            step = sum(took.values())
            flops = recipe.inspect_size(width).flops_per_token * recipe.tokens_per_step
            cells = " | ".join(f"{1e3 * took[name]:.2f}" for name in PHASES)
            share = flops / peak / step
            print(
                f"| {width} | {cells} | {1e3 * step:.2f} | {share:.0%} | "
                f"{kernels_of(recipe, width)} |"
            )


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
