"""Which cells of budgets × sizes can honestly be trained, and why the others cannot."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .cost import StepCost
from .errors import PlanError, ScalingError, ScalingWarning
from .flops import Convention, ParamCounts

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
    @property
    def uncounted(self) -> int: ...


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
    def unit(self) -> str: ...
    @property
    def unique_tokens(self) -> int | None: ...
    def inspect_size(self, value: int | float) -> SizeLike: ...
    def learning_rates(self, values: Sequence[int | float]) -> dict[int | float, float | None]: ...
    def can_branch(self, n_steps: int) -> bool: ...
    @property
    def default_workers(self) -> int: ...
    def measure_step(
        self, value: int | float, *, lr: float | None = None, workers: int = 1, beside: int = 0
    ) -> StepCost: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A size (``budget`` None: at every budget) or a cell that is not trained, and why."""

    size: int | float
    budget: float | None
    reason: str


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
    try:
        values = list(budgets)
    except TypeError:
        raise PlanError("compute_budgets is one number. Give a list, such as [1e12].") from None
    if not values:
        raise PlanError("compute_budgets is empty. Give at least one budget in FLOP.")
    for value in values:
        if isinstance(value, bool | str) or not _is_number(value):
            raise PlanError(f"budget {value!r} is not a number. Give FLOP, such as 1e12.")
        if not (math.isfinite(value) and value > 0):
            raise PlanError(f"budget {value!r} is not a positive, finite number of FLOP.")
    if isinstance(budgets, tuple) and _is_range(values):
        low, high, count = values
        return spread_budgets(low, high, int(count))
    if len(values) == 3 and min(values) <= 1000 < max(values):
        raise PlanError(
            f"compute_budgets is {budgets!r}. For a range give the tuple (low, high, count) with "
            "low < high and count >= 2; for single budgets a list of FLOP, ascending."
        )
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


def spread_budgets(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return `count` > 1 budgets from `low` to `high`, FLOP, evenly in log C."""
    step = math.log(high / low) / (count - 1)
    return tuple(float(f"{low * math.exp(step * i):.6g}") for i in range(count))


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _is_range(values: Sequence[float]) -> bool:
    if len(values) != 3:
        return False
    low, high, count = values
    return low < high and count == int(count) and 2 <= count <= 1000 < low


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a run must satisfy to be worth training."""

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
            return f"{ratio:.3g} {recipe.unit} per parameter, fewer than {low:g}"
        if ratio > high:
            return f"{ratio:.4g} {recipe.unit} per parameter, more than {high:g}"
        unique = recipe.unique_tokens
        if unique and n_tokens / unique > self.max_epochs:
            return f"{n_tokens / unique:.3g} epochs over the data, more than {self.max_epochs:g}"
        return None


def tokens_for(recipe: Plannable, budget: float, size: SizeLike) -> int:
    """Return D = C / FLOP per token, to the last whole batch."""
    # The guard keeps 2e10 / 2e4 from losing a batch to the last bit of the division.
    steps = budget / (size.flops_per_token * recipe.tokens_per_step)
    return int(steps * (1 + 1e-12)) * recipe.tokens_per_step


def size_grid(
    recipe: Plannable, largest_budget: float, bounds: Bounds, multiple: int | None
) -> tuple[list[SizeLike], list[Skipped]]:
    """Return the counted sizes that all budgets share, ascending in N, and those that fail."""
    own = recipe.sizes
    values = candidates(recipe, multiple)
    grid: list[SizeLike] = []
    skipped: list[Skipped] = []
    for value in values:
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
    _check_that_sizes_differ(recipe, grid)
    return (_thinned(grid) if own is None else grid), skipped


def candidates(recipe: Plannable, multiple: int | None) -> list[int | float]:
    """Return the sizes that may be tried, ascending: a person's own, else the ladder's."""
    values: Sequence[int | float] = (
        recipe.sizes
        if recipe.sizes is not None
        else [v for v in SIZE_LADDER if v >= recipe.smallest]
    )
    if multiple is not None:
        values = [max(1, round(v / multiple)) * multiple for v in values]
    return sorted(set(values))


def _check_that_sizes_differ(recipe: Plannable, grid: Sequence[SizeLike]) -> None:
    """Refuse sizes that all give one N, and warn where two of a person's own do."""
    by_n: dict[int, list[int | float]] = {}
    for size in grid:
        by_n.setdefault(size.counts.total, []).append(size.value)
    twins = {n: values for n, values in by_n.items() if len(values) > 1}
    if not twins:
        return
    if len(by_n) == 1:
        n, values = next(iter(twins.items()))
        raise PlanError(
            f"{recipe.size}={min(values):g} to {max(values):g} all give N = {n:,} parameters: the "
            f"model does not use {recipe.size}, or not for its width or depth. Build the layers "
            f"from {recipe.size}, or name the argument that sets the model's size in size=."
        )
    if recipe.sizes is not None:
        same = "; ".join(
            f"{recipe.size}={', '.join(f'{v:g}' for v in sorted(values))} give N = {n:,}"
            for n, values in twins.items()
        )
        warnings.warn(
            f"some sizes are the same model size: {same} parameters. A fit sees them as repeats "
            "of one size: leave all but one of them out of sizes=.",
            ScalingWarning,
            stacklevel=4,
        )


def _thinned(grid: Sequence[SizeLike], spacing: float = GRID_SPACING) -> list[SizeLike]:
    kept: list[SizeLike] = []
    for size in grid:
        if not kept or size.counts.total >= spacing * kept[-1].counts.total:
            kept.append(size)
    return kept


def spread_out(
    grid: Sequence[SizeLike], fits: Sequence[Collection[SizeLike]], n: int
) -> list[SizeLike]:
    """Return a person's grid, thinned where it is denser than the planner's own would be.

    `n` neighbours of a dense grid, such as ``range(8, 129)``, would span next to nothing. It is
    thinned as far as leaves every budget `n` of the sizes it can train, but no further than
    :data:`GRID_SPACING`.

    Parameters
    ----------
    grid : sequence of sizes, ascending in N
    fits : sequence of collections of sizes
        What each budget can train.
    n : int
        Sizes per budget.
    """
    for eighths in range(8, 0, -1):
        thinned = _thinned(grid, GRID_SPACING ** (eighths / 8))
        values = {size.value for size in thinned}
        left = [sum(size.value in values for size in budget) for budget in fits]
        if all(k >= min(n, len(f)) for k, f in zip(left, fits, strict=True)):
            return thinned
    return list(grid)


def feasible(
    recipe: Plannable,
    budget: float,
    grid: Sequence[SizeLike],
    bounds: Bounds,
    convention: Convention,
) -> tuple[list[SizeLike], list[Skipped]]:
    """Return the sizes that a budget can train, and those it cannot, with the reason."""
    fits, out = [], []
    for size in grid:
        n_tokens = tokens_for(recipe, budget, size)
        reason = bounds.objection(recipe, n_tokens, size.counts.get(convention))
        if reason is None:
            fits.append(size)
        else:
            out.append(Skipped(size=size.value, budget=budget, reason=reason))
    return fits, out


def around_guess(
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


def positive_int(name: str, value: object) -> int:
    """Return `value` as an int if it is a positive one; raise `PlanError` otherwise."""
    number = operator.index(value) if hasattr(value, "__index__") else 0
    if isinstance(value, bool) or number < 1:
        raise PlanError(f"{name} is {value!r}. Give a positive whole number.")
    return number


def checked_range(bounds: tuple[float, float]) -> tuple[float, float]:
    """Return bounds on tokens per parameter if low < high; raise `PlanError` otherwise."""
    try:
        low, high = bounds
        if 0 <= low < high:
            return low, high
    except (TypeError, ValueError):
        pass
    raise PlanError(f"tokens_per_param is {bounds!r}. Give (low, high) with 0 <= low < high.")


def positive_number(name: str, value: object) -> float:
    """Return `value` if it is a positive number, inf included; raise `PlanError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise PlanError(f"{name} is {value!r}. Give a positive number.")
    return float(value)
