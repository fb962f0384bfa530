"""Train a sweep and record it: ``python benchmarks/record_sweep.py stdlib-gpt``.

Writes NAME.csv and NAME.json (provenance) into scaling_nb/recorded/. The run store is kept in
--store, so that a recording that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import scaling_nb as snb
from scaling_nb.models import GPT, gpt_optimizer
from scaling_nb.quickstart import BUDGETS, CONTEXT, EVAL_TOKENS, WIDTHS

RECORDED = Path(__file__).parents[1] / "scaling_nb" / "recorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One sweep to record."""

    about: str
    budgets: tuple[float, ...]
    widths: tuple[int, ...]
    seeds: int
    options: dict[str, Any]


SETTINGS = {
    "stdlib-gpt": Setting(
        about="The quick-start sweep with three seeds: GPT, 2 layers, on the standard library.",
        budgets=BUDGETS,
        widths=WIDTHS,
        seeds=3,
        options={"reuse": "cooldown", "tokens_per_param": (0.1, 800.0), "min_steps": 60},
    ),
    "stdlib-gpt-large": Setting(
        about="The quick-start's GPT at budgets up to eight times larger, one seed.",
        budgets=(6.4e11, 1.28e12, 2.56e12),
        widths=(24, 32, 48, 64, 96, 128),
        seeds=1,
        options={"reuse": "cooldown", "tokens_per_param": (0.1, 800.0), "min_steps": 60},
    ),
}


def make_recipe(setting: Setting) -> tuple[snb.Recipe, dict[str, Any]]:
    """Return the recipe and its description for the provenance."""
    text = snb.datasets.stdlib_text()
    rates = {"lr": 5e-3, "base_width": 32}
    described = {
        "model": "scaling_nb.models.GPT",
        "model_kwargs": {"vocab_size": text.vocab_size, "context": CONTEXT},
        "d_model": list(setting.widths),
        "data": text.describe(),
        "optimizer": {"function": "scaling_nb.models.gpt_optimizer", **rates},
        "batch_size": 8,
        "schedule": "wsd",
        "warmup_steps": 40,
        "eval_tokens": EVAL_TOKENS,
        "budgets": list(setting.budgets),
        "seeds": setting.seeds,
        "plan": setting.options,
    }
    recipe = snb.Recipe(
        GPT,
        size="d_model",
        sizes=setting.widths,
        model_kwargs=described["model_kwargs"],
        dataset=text.train,
        eval_dataset=text.held_out,
        batch_size=8,
        optimizer=partial(gpt_optimizer, **rates),
        warmup_steps=40,
        eval_tokens=EVAL_TOKENS,
        name="GPT on stdlib-text",
    )
    return recipe, described


def commit() -> str:
    """Return the commit of this checkout, marked where files differ from it."""
    git = ["git", "-C", str(RECORDED), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()


def cpu_model() -> str:
    """Return the processor's own name, or its architecture where it has none."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.exists() else []
    return names[0] if names else f"{platform.machine()} CPU"


def main() -> None:
    """Record one sweep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SETTINGS)
    parser.add_argument("--store", type=Path, default=None)
    arguments = parser.parse_args()
    setting = SETTINGS[arguments.name]
    recipe, described = make_recipe(setting)
    plan = snb.plan_sweep(recipe, setting.budgets, seeds=setting.seeds, **setting.options)
    print(plan.summary(), flush=True)
    store = arguments.store or Path(f"{arguments.name}.db")
    executor_name = "threads"
    sweep = snb.Sweep(recipe, plan, store=store, executor=executor_name).start()
    while not sweep.wait(timeout=30):
        print(sweep.status(), flush=True)
    for run in sweep.failures:
        print(f"{run.run_id} size {run.size:g} {run.status}: {run.message}")
    RECORDED.mkdir(exist_ok=True)

    sweep.runs.to_csv(RECORDED / f"{arguments.name}.csv")
    packages = ("scaling_nb", "torch", "numpy", "scipy", "pandas")
    provenance = {
        "name": arguments.name,
        "about": setting.about,
        "command": f"python benchmarks/record_sweep.py {arguments.name}",
        "recipe": described,
        "commit": commit(),
        "executor": f"{executor_name}, {os.cpu_count()} cores",
        "machine": f"{os.cpu_count()}-core {cpu_model()}"
        if recipe.device.type == "cpu"
        else torch.cuda.get_device_name(recipe.device),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
    text = json.dumps(provenance, indent=1)
    (RECORDED / f"{arguments.name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
