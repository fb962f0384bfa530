"""Measure everything that this project says of a GPU, on one GPU, and train a real sweep on it.

    python benchmarks/gpu.py --out DIR [--sweep-seconds 150] [--only step,...] [--device cuda]

Five parts, each printed as a table and kept in DIR/gpu.json: one step of the engine against a
plain loop, in turns, with its share of the card's own matrix product; memory foreseen against
taken; how many workers a GPU is best shared by; time, memory and storing of a sweep, foreseen and
taken; and an IsoFLOP sweep of a GPT on the standard library's text, in bf16, as large as fits into
the time, fitted: DIR/runs.db, runs.csv, allocation.csv and report.html.

With ``--device cpu --small`` it runs anywhere, to see that it runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from record_sweep import commit
from sweep import timed, train_and_store_nothing
from torch import Tensor, nn

import scaling_nb as snb
from scaling_nb.executors import Executor, ProcessExecutor, ThreadExecutor
from scaling_nb.executors.pool import POOL
from scaling_nb.models import GPT, gpt_optimizer
from scaling_nb.quickstart import write_outputs
from scaling_nb.training.batches import Batch
from scaling_nb.training.devices import DeviceMemory
from scaling_nb.training.recipe import Recipe
from scaling_nb.training.trainer import Trainer

Row = dict[str, Any]
PARTS = ("step", "workers", "estimate", "sweep")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model whose step is measured."""

    name: str
    d_model: int
    n_layers: int
    n_heads: int
    context: int
    batch_size: int


SHAPES = (
    Shape(name="small", d_model=128, n_layers=5, n_heads=4, context=256, batch_size=64),
    Shape(name="medium", d_model=512, n_layers=9, n_heads=8, context=512, batch_size=32),
    Shape(name="larger", d_model=1024, n_layers=10, n_heads=16, context=512, batch_size=32),
)
SMALL_SHAPES = (Shape(name="tiny", d_model=32, n_layers=2, n_heads=2, context=32, batch_size=8),)

WIDTHS = (32, 48, 64, 96, 128, 160, 192, 256, 384)
BUDGETS = (6e12, 2e13, 6e13, 1.8e14)
RACE_BUDGETS = (1.2e12, 2.4e12)
SMALL_WIDTHS, SMALL_BUDGETS = (8, 16, 24, 32, 48), (1e9, 2e9, 4e9)
WORKERS = (2, 4, 8)


def bf16_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy, products in bf16 on a GPU."""
    inputs, targets = batch
    with torch.autocast("cuda", torch.bfloat16, enabled=inputs.is_cuda):
        logits = model(inputs)
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def recipe_of(shape: Shape, device: str, *, bf16: bool = True) -> Recipe:
    text = snb.datasets.stdlib_text()
    return Recipe(
        GPT,
        size="d_model",
        sizes=[2 * shape.n_heads, shape.d_model],  # planning tries the smallest, on the CPU
        model_kwargs={
            "vocab_size": text.vocab_size,
            "context": shape.context,
            "n_layers": shape.n_layers,
            "n_heads": shape.n_heads,
        },
        dataset=text.train,
        eval_dataset=text.held_out,
        batch_size=shape.batch_size,
        optimizer=gpt_optimizer,
        eval_tokens=shape.batch_size * shape.context,
        precision="bf16" if bf16 else "fp32",
        device=device,
    )


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def matmul_rate(device: str, n: int) -> float:
    """Return FLOP per second of a product of two n × n matrices in bf16."""
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))

    def several() -> None:
        for _ in range(10):
            a @ b
        synchronize(device)

    several()
    return 10 * 2 * n**3 / statistics.median(timed(several) for _ in range(5))


def plain_steps(recipe: Recipe, size: int, device: str, *, careful: bool) -> Iterator[None]:
    """Take steps as a plain loop does; `careful`: fused, pinned, and no loss read at any step."""
    model = recipe.build_seeded(size, 0).to(device)
    ours = recipe.build_optimizer(model, None)
    groups = [{k: g[k] for k in ("params", "lr", "weight_decay")} for g in ours.param_groups]
    betas = ours.defaults["betas"]
    optimizer = torch.optim.AdamW(groups, betas=betas, fused=True if careful else None)
    for x, y in recipe.data.source.batches(0):
        if careful and device != "cpu":
            x, y = (t.contiguous().pin_memory().to(device, non_blocking=True) for t in (x, y))
        else:
            x, y = x.to(device), y.to(device)
        loss = recipe.loss(model, (x, y))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if not careful:
            loss.item()
        yield


def engine_steps(recipe: Recipe, size: int) -> Callable[[int], None]:
    trainer = Trainer(recipe, size, seed=0, lr=None)

    def take(n: int) -> None:
        trainer.train(trainer.step + n, 10**6, report=lambda piece: None)

    return take


def plain(recipe: Recipe, size: int, device: str, *, careful: bool) -> Callable[[int], None]:
    steps = plain_steps(recipe, size, device, careful=careful)

    def take(n: int) -> None:
        for _ in range(n):
            next(steps)

    return take


def measure_shape(shape: Shape, device: str, rate: float, seconds: float, rounds: int) -> Row:
    """Time the step of one model, contestants in turns, and hold its memory against forecasts."""
    recipe = recipe_of(shape, device)
    size = recipe.inspect_size(shape.d_model)
    row: Row = {"model": shape.name, "N": size.counts.total}
    if device != "cpu":
        row |= memory_of(recipe, shape)
    contestants = {
        "engine": engine_steps(recipe, shape.d_model),
        "engine, fp32": engine_steps(recipe_of(shape, device, bf16=False), shape.d_model),
        "plain loop": plain(recipe, shape.d_model, device, careful=False),
        "careful loop": plain(recipe, shape.d_model, device, careful=True),
    }

    def run(take: Callable[[int], None], n: int) -> None:
        take(n)
        synchronize(device)

    steps = {}
    for name, take in contestants.items():
        run(take, 3)
        steps[name] = max(2, round(seconds / (timed(lambda t=take: run(t, 2)) / 2)))
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, take in contestants.items():
            taken[name].append(timed(lambda t=take, n=steps[name]: run(t, n)) / steps[name])
    for name, found in taken.items():
        row[f"{name}, ms"] = 1e3 * statistics.median(found)
    ratios = [p / e for p, e in zip(taken["plain loop"], taken["engine"], strict=True)]
    careful = [p / e for p, e in zip(taken["careful loop"], taken["engine"], strict=True)]
    flops = size.flops_per_token * recipe.tokens_per_step
    row["of plain"] = statistics.median(ratios)
    row["of careful"] = statistics.median(careful)
    row["TFLOP/s"] = flops / (row["engine, ms"] / 1e3) / 1e12
    row["of matmul"] = row["TFLOP/s"] * 1e12 / rate
    del contestants
    gc.collect()
    return row


def memory_of(recipe: Recipe, shape: Shape) -> Row:
    """Return what ``measure_step`` foresees of a run's memory and time, and what a run takes."""
    cost = recipe.measure_step(shape.d_model)
    gc.collect()
    torch.cuda.empty_cache()
    memory = DeviceMemory([torch.device("cuda:0")])
    trainer = Trainer(recipe, shape.d_model, seed=1, lr=None)
    trainer.train(10, 100, report=lambda piece: None)
    trainer.evaluate()
    return {
        "foreseen, MB": cost.peak_bytes / 2**20,
        "taken, MB": memory.taken()[0] / 2**20,
        "foreseen, ms": 1e3 * cost.step_seconds,
        "watts": cost.watts,
    }


def same_twice(device: str, shape: Shape) -> Row:
    """Return the largest difference between the losses of one run, trained twice."""
    recipe, curves = recipe_of(shape, device), []
    for _ in range(2):
        losses: list[float] = []
        trainer = Trainer(recipe, shape.d_model, seed=1, lr=None)
        trainer.train(200, 200, report=lambda p, to=losses: to.extend(p.loss.tolist()))
        curves.append([*losses, trainer.evaluate()])
    differences = [abs(a - b) for a, b in zip(*curves, strict=True)]
    return {"model": shape.name, "largest difference": max(differences),
            "held-out": differences[-1], "loss": curves[0][-1]}  # fmt: skip


def part_step(options: argparse.Namespace, found: Row) -> None:
    rate = matmul_rate(options.device, 512 if options.small else 8192)
    found["matmul TFLOP/s"] = rate / 1e12
    print(f"bf16 matrix product: {rate / 1e12:.1f} TFLOP/s")
    shapes, seconds = (SMALL_SHAPES, 0.05) if options.small else (SHAPES, 0.4)
    found["step"] = [
        measure_shape(s, options.device, rate, seconds, options.rounds) for s in shapes
    ]
    show(found["step"])
    found["same twice"] = [same_twice(options.device, shapes[0])]
    show(found["same twice"])


def sweep_recipe(options: argparse.Namespace) -> Recipe:
    """Return the recipe of the sweep: GPT, 4 layers, 4 heads, context 128, on characters."""
    text = snb.datasets.stdlib_text()
    return Recipe(
        GPT,
        size="d_model",
        sizes=SMALL_WIDTHS if options.small else WIDTHS,
        model_kwargs={"vocab_size": text.vocab_size, "context": 32 if options.small else 128,
                      "n_layers": 4, "n_heads": 4},
        dataset=text.train,
        eval_dataset=text.held_out,
        batch_size=8 if options.small else 32,
        optimizer=partial(gpt_optimizer, lr=5e-3, base_width=32),
        precision="bf16",
        warmup_steps=40,
        eval_tokens=4096 if options.small else 2**18,
        device=options.device,
        name="GPT on stdlib-text, bf16",
    )  # fmt: skip


def plan_of(recipe: Recipe, budgets: Sequence[float], seeds: int, **options: Any) -> snb.SweepPlan:
    settings = {"reuse": "cooldown", "tokens_per_param": (0.1, 800.0), "min_steps": 80, **options}
    return snb.plan_sweep(recipe, budgets, seeds=seeds, **settings)


def race_plan(recipe: Recipe, options: argparse.Namespace) -> snb.SweepPlan:
    return plan_of(recipe, SMALL_BUDGETS[:1] if options.small else RACE_BUDGETS, 2, reuse=None)


def executors(options: argparse.Namespace) -> dict[str, Executor]:
    made: dict[str, Executor] = {"1 thread": ThreadExecutor(1), "2 threads": ThreadExecutor(2)}
    for n in WORKERS[:1] if options.small else WORKERS:
        made[f"{n} processes"] = ProcessExecutor(n)
    return made


def train_stored(recipe: Recipe, plan: snb.SweepPlan, executor: Executor | str) -> snb.Sweep:
    """Train a plan with everything stored, in a folder that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        made = snb.Sweep(recipe, plan, store=Path(folder) / "runs.db", executor=executor).start()
        made.wait()
        assert made.state == "finished", made.status()
        assert not made.failures, made.failures[0].message
        made.store.close()
    return made


def context_megabytes() -> float:
    """Return what a process takes of a GPU that has multiplied two small matrices."""
    multiply = "import torch; x = torch.ones(512, 512, device='cuda'); (x @ x).sum().item()"
    torch.cuda.init()
    before = torch.cuda.mem_get_info()[0]
    command = [sys.executable, "-c", f"{multiply}; print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        taken = before - torch.cuda.mem_get_info()[0]
        process.kill()
    return taken / 2**20


def part_workers(options: argparse.Namespace, found: Row) -> None:
    recipe = sweep_recipe(options)
    plan = race_plan(recipe, options)
    contestants = executors(options)
    tiny = plan_of(recipe, plan.budgets[:1], 2, reuse=None)
    POOL.warm(max(e.workers(recipe) for e in contestants.values()))
    POOL.settle()
    # Each worker once: their first step loads CUDA and kernels, as a sweep's first does.
    first = timed(lambda: train_stored(recipe, tiny, list(contestants.values())[-1]))
    foreseen = plan.estimate(workers=1).seconds
    found["workers"], found["race foreseen, s"], found["first, s"] = [], foreseen, first
    if options.device != "cpu":
        found["context, MB"] = context_megabytes()
        print(f"a process has {found['context, MB']:.0f} MB besides its tensors")
    for name, executor in contestants.items():
        seconds = timed(lambda e=executor: train_stored(recipe, plan, e))
        base = found["workers"][0]["seconds"] if found["workers"] else seconds
        found["workers"].append(
            {"workers": name, "runs": len(plan.runs), "seconds": seconds, "faster": base / seconds,
             "TFLOP/s": plan.trained_flops / seconds / 1e12}
        )  # fmt: skip
    show(found["workers"])
    print(f"foreseen of one worker: {foreseen:.1f} s")


def part_estimate(options: argparse.Namespace, found: Row) -> None:
    recipe = sweep_recipe(options)
    plan = plan_of(recipe, SMALL_BUDGETS[:2] if options.small else RACE_BUDGETS, 1)
    rows = []
    for name, executor in list(executors(options).items())[:3]:
        if name == "2 threads":
            continue
        with tempfile.TemporaryDirectory() as folder:
            made = snb.Sweep(recipe, plan, store=Path(folder) / "runs.db", executor=executor)
            estimate = made.estimate()
            made.start().wait()
            predicted, actual = made.costs()
            made.store.close()
        assert predicted is not None
        assert actual is not None
        rows.append(
            {"executor": name, "foreseen, s": predicted.seconds, "taken, s": actual.seconds,
             "time off": predicted.seconds / actual.seconds - 1,
             "foreseen, MB": predicted.peak_bytes / 2**20, "taken, MB": actual.peak_bytes / 2**20,
             "memory off": predicted.peak_bytes / actual.peak_bytes - 1, "kWh": estimate.kwh}
        )  # fmt: skip
    found["estimate"] = rows
    show(rows)
    alone = plan_of(recipe, plan.budgets[:1], 1, reuse=None)
    found["storing"] = []
    for _ in range(options.rounds // 2 + 1):
        bare = timed(lambda: train_and_store_nothing(recipe, alone))
        stored = timed(lambda: train_stored(recipe, alone, "inline"))
        found["storing"].append({"with, s": stored, "without, s": bare, "cost": stored / bare - 1})
    show(found["storing"])


def part_sweep(options: argparse.Namespace, found: Row) -> None:
    """Train the largest sweep that fits into the time, with the quickest executor; fit it."""
    recipe = sweep_recipe(options)
    raced = found.get("workers") or [{"workers": list(executors(options))[-1], "seconds": 1.0}]
    best = min(raced, key=lambda row: row["seconds"])
    speedup = found.get("race foreseen, s", 2.0) / best["seconds"]
    budgets = SMALL_BUDGETS if options.small else BUDGETS
    seconds = math.inf
    for seeds, top in ((5, None), (3, None), (2, None), (1, None), (1, -1)):
        plan = plan_of(recipe, budgets[:top], seeds)
        seconds = plan.estimate(workers=1).seconds / speedup
        print(f"{seeds} seeds, {len(plan.runs)} runs, {plan.trained_flops:.2g} FLOP: "
              f"about {seconds:.0f} s by {best['workers']}")  # fmt: skip
        if seconds < options.sweep_seconds:
            break
    folder = Path(tempfile.mkdtemp(prefix="gpu-sweep-"))
    executor = executors(options)[best["workers"]]
    began = time.monotonic()
    sweep = snb.Sweep(recipe, plan, store=folder / "runs.db", executor=executor).start()
    while not sweep.wait(timeout=10):
        print(sweep.status(), flush=True)
        if time.monotonic() - began > 1.4 * options.sweep_seconds:
            sweep.cancel()
    took = time.monotonic() - began
    result = snb.result_of(sweep)
    write_outputs(result, options.out, title=recipe.name)
    sweep.store.close()
    shutil.copy(folder / "runs.db", options.out / "runs.db")
    found["sweep"] = {
        "state": sweep.state, "executor": best["workers"], "runs": len(sweep.runs),
        "planned": len(plan.runs), "failed": [run.message for run in sweep.failures],
        "seconds": took, "foreseen, s": seconds, "FLOP": plan.trained_flops,
        "TFLOP/s": plan.trained_flops / took / 1e12, "recipe": recipe.parts(), "seeds": seeds,
        "budgets": list(plan.budgets), "answer": str(result), "warnings": list(result.warnings),
    }  # fmt: skip
    print(f"{sweep.state}: {len(sweep.runs)} of {len(plan.runs)} runs in {took:.0f} s, "
          f"{plan.trained_flops / took / 1e12:.1f} TFLOP/s")  # fmt: skip
    print(result)
    frame = sweep.runs.to_frame()
    table = frame.pivot_table(index="budget", columns="size", values="loss")
    print(table.to_string(float_format="{:.3f}".format, na_rep="–"))


def show(rows: Sequence[Row]) -> None:
    """Print rows as a table."""
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(_cell, row.values())) + " |", flush=True)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def machine(device: str) -> Row:
    name = torch.cuda.get_device_name(device) if device != "cpu" else platform.machine()
    return {"device": name, "cores": os.cpu_count(), "load": os.getloadavg()[0],
            "torch": torch.__version__, "python": platform.python_version(),
            "date": time.strftime("%Y-%m-%d")}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sweep-seconds", type=float, default=150)
    parser.add_argument("--small", action="store_true", help="models and budgets for a CPU")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", snb.ScalingWarning)
    found: Row = machine(options.device)
    try:
        found["commit"] = commit()
    except Exception:
        found["commit"] = "unknown"
    print(json.dumps(found))
    parts = {"step": part_step, "workers": part_workers, "estimate": part_estimate,
             "sweep": part_sweep}  # fmt: skip
    for name in options.only.split(","):
        began = time.monotonic()
        try:
            parts[name](options, found)
        except Exception:
            found[f"{name} failed"] = traceback.format_exc()
            print(found[f"{name} failed"], flush=True)
        found[f"{name} took, s"] = time.monotonic() - began
        print(f"{name} took {time.monotonic() - began:.0f} s\n", flush=True)
        text = json.dumps(found, indent=1, default=str)
        (options.out / "gpu.json").write_text(text + "\n", encoding="utf-8")
    POOL.close()


if __name__ == "__main__":
    main()
