"""Which runs to train: IsoFLOP slices over a grid of sizes that all budgets share.

For each budget C and size with f FLOP per token, D = C / f, rounded down to whole batches. Cells
that no honest run can fill (too few steps, too few or too many tokens per parameter, data repeated
too often) are left out by name.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from .errors import PlanError, ScalingError, ScalingWarning
from .flops import Convention, ParamCounts, check_convention, six_nd
from .records import RunSpec, content_hash

if TYPE_CHECKING:
    import pandas as pd

Reuse = Literal["cooldown"] | None

GUESSED_TOKENS_PER_PARAM = 20.0
"""Where a budget's window of sizes is centred before anything is known; Hoffmann et al. 2022."""

GRID_SPACING = 1.7
"""Least ratio in N between neighbours of a grid that the planner chooses itself."""


SIZE_LADDER: tuple[int, ...] = tuple(
    sorted({1} | {2**k for k in range(1, 17)} | {3 * 2**k for k in range(16)})
)
"""Sizes that are tried where the recipe names none: 1, 2, 3, 4, 6, 8, 12, …, 98304."""


class SizeLike(Protocol):
    """One counted size, as a recipe returns it."""

    @property
    def value(self) -> int | float: ...
    @property
    def counts(self) -> ParamCounts: ...
    @property
    def flops_per_token(self) -> float: ...


class Plannable(Protocol):
    """What planning asks of a recipe."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> str: ...
    @property
    def sizes(self) -> Sequence[int | float] | None: ...
    @property
    def smallest(self) -> int | float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def recipe_id(self) -> str: ...
    @property
    def tokens_per_step(self) -> int: ...
    @property
    def unique_tokens(self) -> int | None: ...
    def inspect_size(self, value: int | float) -> SizeLike: ...
    def learning_rates(self, values: Sequence[int | float]) -> dict[int | float, float | None]: ...
    def can_branch(self, n_steps: int) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A size (``budget`` None: at every budget) or a cell that is not trained, and why."""

    size: int | float
    budget: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """The runs of a sweep, frozen; equal content, equal :attr:`plan_id`.

    Attributes
    ----------
    runs : tuple of RunSpec
        Ascending by budget, N, seed.
    budgets : tuple of float, FLOP
    size_name : str
        The model's size argument.
    skipped : tuple of Skipped
        What was left out, each with its reason.
    reuse : "cooldown" or None
        Whether runs of one size and seed share a training trunk.
    """

    runs: tuple[RunSpec, ...] = field(repr=False)
    budgets: tuple[float, ...]
    size_name: str
    recipe_name: str
    recipe_id: str
    convention: Convention = "total"
    reuse: Reuse = None
    skipped: tuple[Skipped, ...] = field(default=(), repr=False)

    @property
    def plan_id(self) -> str:
        """Content hash of the runs and their labels."""
        return content_hash(self.to_dict())

    @property
    def total_flops(self) -> float:
        """Sum of C over the runs, FLOP."""
        return math.fsum(run.compute for run in self.runs)

    @property
    def trained_flops(self) -> float:
        """FLOP that are really spent: with shared trunks less than :attr:`total_flops`."""
        return math.fsum(job_compute(job) for job in self.jobs())

    def jobs(self) -> tuple[tuple[RunSpec, ...], ...]:
        """Return the runs grouped by trunk, shortest run first; costliest job first."""
        groups: dict[str, list[RunSpec]] = {}
        for run in self.runs:
            groups.setdefault(run.trunk_id, []).append(run)
        jobs = [tuple(sorted(group, key=lambda r: r.n_tokens)) for group in groups.values()]
        return tuple(sorted(jobs, key=job_compute, reverse=True))

    def to_frame(self) -> pd.DataFrame:
        """Return one row a run: size, N, D, tokens per parameter, epochs, steps, C, 6·N·D, …."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "budget": run.budget,
                    self.size_name: run.size,
                    "seed": run.seed,
                    "N": run.n_params,
                    "D": run.n_tokens,
                    "tokens_per_param": run.tokens_per_param,
                    "epochs": run.epochs,
                    "steps": run.n_steps,
                    "C": run.compute,
                    "C_6ND": six_nd(run.n_params, run.n_tokens),
                    "lr": run.lr,
                    "run_id": run.run_id,
                }
                for run in self.runs
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; :meth:`from_dict` reads it back."""
        return {**asdict(self), "runs": [run.to_dict() for run in self.runs]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read back what :meth:`to_dict` wrote."""
        return cls(
            **{
                **data,
                "runs": tuple(RunSpec.from_dict(run) for run in data["runs"]),
                "budgets": tuple(data["budgets"]),
                "skipped": tuple(Skipped(**s) for s in data["skipped"]),
            }
        )

    def summary(self) -> str:
        """Return one line: how many runs of which sizes, budgets and compute."""
        sizes = sorted({run.size for run in self.runs})
        saved = ", trunks shared" if self.reuse else ""
        return (
            f"{len(self.runs)} runs of {self.recipe_name}: {self.size_name} {sizes[0]:g} to "
            f"{sizes[-1]:g} at {len(self.budgets)} budgets from {self.budgets[0]:.3g} to "
            f"{self.budgets[-1]:.3g} FLOP; {self.trained_flops:.3g} FLOP in all{saved}"
        )

    def __repr__(self) -> str:
        lines = [
            self.summary(),
            self.to_frame().to_string(index=False, float_format="{:.4g}".format),
        ]
        return "\n".join([*lines, *self._notes()])

    def _repr_html_(self) -> str:
        table = self.to_frame().to_html(index=False, float_format="{:.4g}".format)
        notes = "".join(f"<li>{note}</li>" for note in self._notes())
        return f"<p>{self.summary()}</p>{table}<ul>{notes}</ul>"

    def _notes(self) -> list[str]:
        return [
            f"left out: {self.size_name}={s.size:g}"
            + (f" at {s.budget:.3g} FLOP" if s.budget else "")
            + f": {s.reason}"
            for s in self.skipped
        ]


def job_compute(job: Sequence[RunSpec]) -> float:
    """Return the FLOP that training one trunk and all its branches takes."""
    longest = max(job, key=lambda run: run.n_tokens)
    cooldowns = [run.compute * 0.2 for run in job if run is not longest]
    return longest.compute + math.fsum(cooldowns)


def plan_sweep(
    recipe: Plannable,
    compute_budgets: Sequence[float] | tuple[float, float, int],
    n_sizes: int | None = None,
    seeds: int = 1,
    *,
    convention: Convention = "total",
    reuse: Reuse = None,
    min_steps: int = 60,
    tokens_per_param: tuple[float, float] = (0.1, 1000.0),
    max_epochs: float = 4.0,
    size_multiple: int | None = None,
) -> SweepPlan:
    """Plan an IsoFLOP sweep: for each budget C, sizes log-spaced in N and D = C / FLOP per token.

    Parameters
    ----------
    recipe : Recipe
    compute_budgets : sequence of float, FLOP, ascending; or (low, high, count)
        (low, high, count) is log-spaced.
    n_sizes : int, optional
        Sizes per budget, neighbours on the common grid around 20 tokens per parameter. None: all
        of the recipe's own ``sizes``, or 6 where the planner chooses the grid.
    seeds : int
        Repeats of every run.
    convention : {"total", "non_embedding", "matmul"}
        What N counts. All conventions are recorded with every run.
    reuse : {None, "cooldown"}
        "cooldown": one training trunk per size and seed, a cooldown branch for each budget.
        Saves compute; the runs of a trunk share their noise.
    min_steps : int
        Fewest optimiser steps of a run.
    tokens_per_param : (float, float)
        Bounds on D / N.
    max_epochs : float
        Most passes over the training data; up to 4 cost little (Muennighoff et al. 2023).
    size_multiple : int, optional
        Round sizes to a multiple, such as 64 for GPUs.

    Returns
    -------
    SweepPlan

    Raises
    ------
    PlanError
        Bad budgets, or none feasible: the message says which would be.

    References
    ----------
    Hoffmann et al. 2022, §3.2 (IsoFLOP profiles).
    """
    budgets = parse_budgets(compute_budgets)
    bounds = _Bounds(
        min_steps=_positive_int("min_steps", min_steps),
        tokens_per_param=_checked_range(tokens_per_param),
        max_epochs=max_epochs,
    )
    seeds = _positive_int("seeds", seeds)
    if n_sizes is not None:
        _positive_int("n_sizes", n_sizes)
    check_convention(convention)
    _check_reuse(reuse, recipe)
    grid, skipped = _grid(recipe, budgets[-1], bounds, size_multiple)
    window = n_sizes or (None if recipe.sizes is not None else 6)
    cells: list[tuple[float, SizeLike]] = []
    for budget in budgets:
        fits, out = _feasible(recipe, budget, grid, bounds, convention)
        skipped += out
        cells += [(budget, s) for s in _around_guess(fits, budget, window, convention)]
    if not cells:
        raise PlanError(_nothing_feasible(recipe, grid, skipped, bounds, convention))
    rates = recipe.learning_rates(sorted({size.value for _, size in cells}))
    runs = _specs(recipe, cells, seeds, rates, convention, reuse)
    runs, twice = _without_twins(runs)
    _warn(runs, budgets)
    return SweepPlan(
        runs=runs,
        budgets=budgets,
        size_name=recipe.size,
        recipe_name=recipe.name,
        recipe_id=recipe.recipe_id,
        convention=convention,
        reuse=reuse,
        skipped=tuple(skipped + twice),
    )


def parse_budgets(budgets: Sequence[float] | tuple[float, float, int]) -> tuple[float, ...]:
    """Return ascending budgets in FLOP; ``(low, high, count)`` is spread evenly in log C.

    Raises
    ------
    PlanError
        Empty, not numbers, not positive and finite, unsorted, or twice the same.
    """
    if isinstance(budgets, str) or not isinstance(budgets, Iterable):
        raise PlanError(
            f"compute_budgets is {budgets!r}. Give FLOP as a list, such as [1e12, 3e12, 1e13], "
            "or (low, high, count)."
        )
    values = list(budgets)
    if not values:
        raise PlanError("compute_budgets is empty. Give at least one budget in FLOP.")
    for value in values:
        if isinstance(value, bool | str) or not _is_number(value):
            raise PlanError(f"budget {value!r} is not a number. Give FLOP, such as 1e12.")
        if not (math.isfinite(value) and value > 0):
            raise PlanError(f"budget {value!r} is not a positive, finite number of FLOP.")
    if isinstance(budgets, tuple) and _is_range(values):
        low, high, count = values
        step = math.log(high / low) / (count - 1)
        return tuple(float(f"{low * math.exp(step * i):.6g}") for i in range(int(count)))
    numbers = [float(value) for value in values]
    if len(set(numbers)) < len(numbers):
        once = ", ".join(f"{v:g}" for v in sorted(set(numbers)))
        raise PlanError(
            f"a budget is given twice. Give each once: [{once}]; for repeats use seeds=."
        )
    if numbers != sorted(numbers):
        ascending = ", ".join(f"{v:g}" for v in sorted(numbers))
        raise PlanError(f"compute_budgets is not ascending. Give [{ascending}].")
    return tuple(numbers)


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _is_range(values: Sequence[float]) -> bool:
    if len(values) != 3:
        return False
    low, high, count = values
    return low < high and count == int(count) and 2 <= count <= 1000 < low


def _positive_int(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PlanError(f"{name} is {value!r}. Give a positive whole number.")
    return value


def _checked_range(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    if not 0 <= low < high:
        raise PlanError(f"tokens_per_param is {bounds!r}. Give (low, high) with 0 <= low < high.")
    return low, high


def _check_reuse(reuse: object, recipe: Plannable) -> None:
    if reuse not in (None, "cooldown"):
        raise PlanError(f'reuse is {reuse!r}. Choose "cooldown" or None.')
    if reuse == "cooldown" and recipe.schedule != "wsd":
        raise PlanError(
            f'reuse="cooldown" needs schedule="wsd", but the recipe has {recipe.schedule!r}: its '
            'rate depends on the run\'s length from the start. Use schedule="wsd" or reuse=None.'
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    min_steps: int
    tokens_per_param: tuple[float, float]
    max_epochs: float

    def objection(self, recipe: Plannable, n_tokens: int, n_params: int) -> str | None:
        """Return why a run of D tokens at N parameters is not worth training, or None."""
        steps = n_tokens // recipe.tokens_per_step
        if steps < self.min_steps:
            return f"{steps} steps, fewer than {self.min_steps}"
        low, high = self.tokens_per_param
        ratio = n_tokens / n_params
        if ratio < low:
            return f"{ratio:.3g} tokens per parameter, fewer than {low:g}"
        if ratio > high:
            return f"{ratio:.4g} tokens per parameter, more than {high:g}"
        unique = recipe.unique_tokens
        if unique and n_tokens / unique > self.max_epochs:
            return f"{n_tokens / unique:.3g} epochs over the data, more than {self.max_epochs:g}"
        return None


def _tokens(recipe: Plannable, budget: float, size: SizeLike) -> int:
    """Return D = C / FLOP per token, to the last whole batch."""
    # The guard keeps 2e10 / 2e4 from losing a batch to the last bit of the division.
    steps = budget / (size.flops_per_token * recipe.tokens_per_step)
    return int(steps * (1 + 1e-12)) * recipe.tokens_per_step


def _grid(
    recipe: Plannable, largest_budget: float, bounds: _Bounds, multiple: int | None
) -> tuple[list[SizeLike], list[Skipped]]:
    """Return the counted sizes that all budgets share, ascending in N, and those that fail."""
    own = recipe.sizes
    values = (
        list(dict.fromkeys(own))
        if own is not None
        else [v for v in SIZE_LADDER if v >= recipe.smallest]
    )
    if multiple is not None:
        _positive_int("size_multiple", multiple)
        values = list(dict.fromkeys(max(1, round(v / multiple)) * multiple for v in values))
    grid: list[SizeLike] = []
    skipped: list[Skipped] = []
    for value in sorted(values):
        try:
            size = recipe.inspect_size(value)
        except ScalingError as error:
            skipped.append(Skipped(size=value, budget=None, reason=str(error)))
            continue
        grid.append(size)
        steps = largest_budget / (size.flops_per_token * recipe.tokens_per_step)
        if own is None and steps < bounds.min_steps:
            break
    grid.sort(key=lambda s: s.counts.total)
    if not grid:
        reasons = "; ".join(f"{recipe.size}={s.size:g}: {s.reason}" for s in skipped[:3])
        raise PlanError(f"no size can be built ({reasons}). Give sizes= that the model accepts.")
    return (_thinned(grid) if own is None else grid), skipped


def _thinned(grid: Sequence[SizeLike]) -> list[SizeLike]:
    kept: list[SizeLike] = []
    for size in grid:
        if not kept or size.counts.total >= GRID_SPACING * kept[-1].counts.total:
            kept.append(size)
    return kept


def _feasible(
    recipe: Plannable,
    budget: float,
    grid: Sequence[SizeLike],
    bounds: _Bounds,
    convention: Convention,
) -> tuple[list[SizeLike], list[Skipped]]:
    fits, out = [], []
    for size in grid:
        n_tokens = _tokens(recipe, budget, size)
        reason = bounds.objection(recipe, n_tokens, size.counts.get(convention))
        if reason is None:
            fits.append(size)
        else:
            out.append(Skipped(size=size.value, budget=budget, reason=reason))
    return fits, out


def _around_guess(
    fits: Sequence[SizeLike], budget: float, window: int | None, convention: Convention
) -> list[SizeLike]:
    """Return `window` neighbouring sizes whose mean ln(D/N) is nearest to the guess."""
    if window is None or len(fits) <= window:
        return list(fits)
    target = math.log(GUESSED_TOKENS_PER_PARAM)
    ratios = [math.log(budget / s.flops_per_token / s.counts.get(convention)) for s in fits]
    starts = range(len(fits) - window + 1)
    best = min(starts, key=lambda i: abs(math.fsum(ratios[i : i + window]) / window - target))
    return list(fits[best : best + window])


def _specs(
    recipe: Plannable,
    cells: Sequence[tuple[float, SizeLike]],
    seeds: int,
    rates: dict[int | float, float | None],
    convention: Convention,
    reuse: Reuse,
) -> tuple[RunSpec, ...]:
    specs = []
    for budget, size in cells:
        n_tokens = _tokens(recipe, budget, size)
        shared = reuse == "cooldown" and recipe.can_branch(n_tokens // recipe.tokens_per_step)
        for seed in range(seeds):
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


def _without_twins(runs: Sequence[RunSpec]) -> tuple[tuple[RunSpec, ...], list[Skipped]]:
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


def _nothing_feasible(
    recipe: Plannable,
    grid: Sequence[SizeLike],
    skipped: Sequence[Skipped],
    bounds: _Bounds,
    convention: Convention,
) -> str:
    reasons = "; ".join(
        f"{recipe.size}={s.size:g} at {s.budget:.3g} FLOP: {s.reason}" for s in skipped if s.budget
    )
    affordable = [_affordable(recipe, size, bounds, convention) for size in grid]
    ranges = [r for r in affordable if r is not None]
    if not ranges:
        return (
            f"no run is feasible at any budget ({reasons}). The data has "
            f"{recipe.unique_tokens or 0:,} tokens: loosen min_steps, tokens_per_param or "
            "max_epochs, or give more data."
        )
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    return (
        f"no run is feasible ({reasons}). Budgets from {low:.3g} to {high:.3g} FLOP are feasible "
        "for these sizes; or loosen min_steps, tokens_per_param or max_epochs."
    )


def _affordable(
    recipe: Plannable, size: SizeLike, bounds: _Bounds, convention: Convention
) -> tuple[float, float] | None:
    """Return the least and the largest budget at which one size is feasible, or None."""
    n = size.counts.get(convention)
    low_ratio, high_ratio = bounds.tokens_per_param
    least = max(bounds.min_steps * recipe.tokens_per_step, low_ratio * n)
    most = high_ratio * n
    if recipe.unique_tokens:
        most = min(most, bounds.max_epochs * recipe.unique_tokens)
    if least > most:
        return None
    # One batch more: D is rounded down to whole batches.
    return (least + recipe.tokens_per_step) * size.flops_per_token, most * size.flops_per_token


def _warn(runs: Sequence[RunSpec], budgets: Sequence[float]) -> None:
    repeated = [run for run in runs if run.epochs > 1]
    if repeated:
        most = max(run.epochs for run in repeated)
        warnings.warn(
            f"{len(repeated)} of {len(runs)} runs repeat the data (up to {most:.2g} epochs). "
            "Repeated tokens are worth less than new ones: give more data, or smaller budgets.",
            ScalingWarning,
            stacklevel=3,
        )
    for budget in budgets:
        sizes = {run.size for run in runs if run.budget == budget}
        if len(sizes) < 3:
            warnings.warn(
                f"only {len(sizes)} sizes are feasible at {budget:.3g} FLOP: a minimum needs at "
                "least 3. Give more sizes, or another budget.",
                ScalingWarning,
                stacklevel=3,
            )
