"""The cells of budgets × sizes that a plan trains, as runs; and what is weak about them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from .errors import ScalingWarning, counted
from .flops import Convention
from .grid import (
    Bounds,
    Plannable,
    SizeLike,
    Skipped,
    around_guess,
    feasible,
    spread_out,
    tokens_for,
)
from .records import RunSpec


def cells_of(
    recipe: Plannable,
    budgets: Sequence[float],
    grid: Sequence[SizeLike],
    bounds: Bounds,
    convention: Convention,
    window: int | None,
) -> tuple[list[tuple[float, SizeLike]], list[Skipped]]:
    """Return the cells to train, and those left out with the reason."""
    skipped: list[Skipped] = []
    fits: list[list[SizeLike]] = []
    for budget in budgets:
        fitting, out = feasible(recipe, budget, grid, bounds, convention)
        fits.append(fitting)
        skipped += out
    spread = grid if window is None else spread_out(grid, fits, window)
    cells: list[tuple[float, SizeLike]] = []
    for budget, fitting in zip(budgets, fits, strict=True):
        apart = [size for size in fitting if size in spread]
        chosen = around_guess(apart, budget, window, convention)
        outside = f"outside the {counted(window or 0, 'size')} asked for"
        cells += [(budget, size) for size in chosen]
        skipped += [
            Skipped(size=size.value, budget=budget, reason=outside)
            for size in fitting
            if size not in chosen
        ]
    return cells, skipped


def warn_of_uncounted(sizes: Sequence[SizeLike]) -> None:
    """Warn where the convention "matmul" leaves matrices out that it cannot judge."""
    if (most := max(size.uncounted for size in sizes)) > 0:
        warnings.warn(
            f"N counts the matrices of layers that are known to multiply, and the model has {most} "
            "parameters in matrices of its own besides (nn.Parameter, say), which it leaves out. "
            'Use convention="total", or define num_params() and use that.',
            ScalingWarning,
            stacklevel=3,
        )


def specs_of(
    recipe: Plannable,
    cells: Sequence[tuple[float, SizeLike]],
    seeds: Sequence[int],
    rates: dict[int | float, float | None],
    convention: Convention,
    reuse: str | None,
) -> tuple[RunSpec, ...]:
    """Return one run a cell and seed, ascending by budget, N, seed."""
    specs = []
    for budget, size in cells:
        n_tokens = tokens_for(recipe, budget, size)
        shared = reuse == "cooldown" and recipe.can_branch(n_tokens // recipe.tokens_per_step)
        for seed in seeds:
            trunk = f"{recipe.size}={size.value:g} seed={seed}"
            specs.append(
                RunSpec(
                    size=size.value,
                    counts=size.counts,
                    convention=convention,
                    n_tokens=n_tokens,
                    tokens_per_step=recipe.tokens_per_step,
                    flops_per_token=size.flops_per_token,
                    budget=budget,
                    seed=seed,
                    trunk_id=trunk if shared else f"{trunk} D={n_tokens}",
                    unique_tokens=recipe.unique_tokens,
                    lr=rates[size.value],
                    schedule=recipe.schedule,
                    recipe_id=recipe.recipe_id,
                )
            )
    return tuple(specs)


def without_twins(runs: Sequence[RunSpec]) -> tuple[tuple[RunSpec, ...], list[Skipped]]:
    """Leave out runs that rounding to whole batches made the same as an earlier one."""
    kept: dict[str, RunSpec] = {}
    twins = []
    for run in runs:
        if run.run_id in kept:
            reason = f"the same run as at {kept[run.run_id].budget:.3g} FLOP"
            twins.append(Skipped(size=run.size, budget=run.budget, reason=reason))
        else:
            kept[run.run_id] = run
    return tuple(kept.values()), twins


def warn_of_weak(runs: Sequence[RunSpec], budgets: Sequence[float], unit: str) -> None:
    """Warn of repeated data, and of budgets with too few sizes for a minimum."""
    repeated = [run for run in runs if run.epochs > 1]
    if repeated:
        most = max(run.epochs for run in repeated)
        # 1.004 epochs are no "1 epochs".
        epochs = f"{most:.2g}" if most >= 1.05 else f"{most:.3g}"
        times = f"up to {epochs} epochs" if most >= 1.005 else "by less than 1% of it"
        verb = "repeats" if len(repeated) == 1 else "repeat"
        warnings.warn(
            f"{len(repeated)} of {counted(len(runs), 'run')} {verb} the data ({times}). "
            f"Repeated {unit} are worth less than new ones: give more data, or smaller budgets.",
            ScalingWarning,
            stacklevel=3,
        )
    for budget in budgets:
        sizes = {run.size for run in runs if run.budget == budget}
        if len(sizes) < 3:
            few = {0: "no size is", 1: "only 1 size is"}.get(len(sizes), "only 2 sizes are")
            warnings.warn(
                f"{few} feasible at {budget:.3g} FLOP: a minimum needs at least 3. Give more "
                "sizes, or another budget.",
                ScalingWarning,
                stacklevel=3,
            )
