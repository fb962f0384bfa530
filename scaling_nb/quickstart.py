"""The ready-made sweep: a small GPT on the standard library's own source text.

It answers, on a laptop's CPU in minutes and with no download, the question this package exists
for. The settings were chosen by the spread between seeds and by interior minima at every budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .api import Result
from .datasets import stdlib_text
from .executors import warm_up
from .models import GPT, gpt_optimizer
from .plan import SweepPlan, plan_sweep
from .sweep import Sweep
from .training.recipe import Recipe

BUDGETS = (2e10, 4e10, 8e10, 1.6e11, 3.2e11)
QUICK_BUDGETS = (4e9, 8e9, 1.6e10, 3.2e10)
WIDTHS = (8, 12, 16, 24, 32, 48, 64)
QUICK_WIDTHS = (4, 8, 12, 16, 24, 32)
CONTEXT = 64
EVAL_TOKENS = 49_152


def quickstart_recipe(*, quick: bool = False) -> Recipe:
    """Return the ready-made recipe: GPT, 2 layers, 2 heads, context 64, on 97 characters.

    Parameters
    ----------
    quick : bool
        Smaller widths, for budgets from 5e9 FLOP.
    """
    text = stdlib_text()
    return Recipe(
        GPT,
        size="d_model",
        sizes=QUICK_WIDTHS if quick else WIDTHS,
        model_kwargs={"vocab_size": text.vocab_size, "context": CONTEXT},
        dataset=text.train,
        eval_dataset=text.held_out,
        batch_size=8,
        optimizer=partial(gpt_optimizer, lr=5e-3, base_width=32),
        warmup_steps=40,
        eval_tokens=EVAL_TOKENS,
        name="GPT on stdlib-text",
    )


def quickstart_plan(
    recipe: Recipe,
    budgets: Sequence[float] | None = None,
    *,
    seed: int = 0,
    seeds: int = 1,
    quick: bool = False,
    n_sizes: int | None = None,
) -> SweepPlan:
    """Return the ready-made plan: every feasible width at each budget, trunks shared."""
    return plan_sweep(
        recipe,
        list(budgets) if budgets else list(QUICK_BUDGETS if quick else BUDGETS),
        n_sizes,
        seeds=range(seed, seed + seeds),
        reuse="cooldown",
        tokens_per_param=(0.1, 800.0),
        min_steps=60,
    )


def quickstart_sweep(
    out: Path,
    *,
    seed: int = 0,
    budgets: Sequence[float] | None = None,
    quick: bool = False,
    executor: str = "auto",
) -> Sweep:
    """Make the ready-made sweep with its store in the folder `out`; not started yet."""
    recipe = quickstart_recipe(quick=quick)
    warm_up(executor, recipe)
    plan = quickstart_plan(recipe, budgets, seed=seed, quick=quick)
    out.mkdir(parents=True, exist_ok=True)
    return Sweep(recipe, plan, store=out / "runs.db", executor=executor)


def write_outputs(result: Result, out: Path, *, title: str) -> list[Path]:
    """Write ``runs.csv``, ``allocation.csv`` and ``report.html`` into the folder `out`.

    Without an answer there is no ``allocation.csv``, and one of an earlier run is removed.
    """
    from .plots.report import sweep_report

    runs, allocation, report = (out / f for f in ("runs.csv", "allocation.csv", "report.html"))
    result.runs.to_csv(runs)
    table = result.chinchilla_table() if result.answers else None
    if table is None:
        allocation.unlink(missing_ok=True)
    else:
        table.to_csv(allocation, index=False)
    page = sweep_report(
        result.fit,
        result.curves,
        table,
        title=title,
        law=result.law,
        target=result.target if result.answers else None,
    )
    report.write_text(page, encoding="utf-8")
    return [path for path in (runs, allocation, report) if path.exists()]
