"""Which budgets a recipe can be trained at, as messages name them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import ScalingError
from .flops import Convention
from .grid import Bounds, Plannable, SizeLike, Skipped, candidates

_LOOSEN = "loosen plan_sweep's bounds in Python: min_steps, tokens_per_param or max_epochs"
_COUNTED = 16
"""Sizes of the ladder that are counted for a message: the larger ones may take long to build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Affordable:
    """Budgets at which some size can be trained, FLOP, and the sizes that reach the ends.

    `more` says that sizes beyond the largest that was counted reach further.
    """

    low: float
    high: float
    smallest: int | float
    largest: int | float
    more: bool

    @classmethod
    def of(
        cls, recipe: Plannable, bounds: Bounds, convention: Convention, multiple: int | None
    ) -> Affordable | None:
        """Ask every size that may be planned, whatever budget was asked for; None: no budget."""
        values = candidates(recipe, multiple)
        more = recipe.sizes is None
        found: list[tuple[int | float, float, float]] = []
        for value in values[:_COUNTED] if more else values:
            with contextlib.suppress(ScalingError):
                size = recipe.inspect_size(value)
                ends = affordable_budgets(recipe, size, bounds, convention)
                if ends is not None:
                    found.append((value, *ends))
                elif more and size.counts.get(convention) > _most_params(recipe, bounds):
                    more = False
                    break
        if not found:
            return None
        return cls(
            low=min(low for _, low, _ in found),
            high=max(high for *_, high in found),
            smallest=found[0][0],
            largest=found[-1][0],
            more=more,
        )

    def sentence(self, size_name: str) -> str:
        """Return the range as a sentence."""
        sizes = f"{size_name}={self.smallest:g}"
        sizes += f" to {self.largest:g}" if self.largest > self.smallest else ""
        more = ", larger ones for larger sizes" if self.more else ""
        return (
            f"Budgets from {self.low:.3g} to {self.high:.3g} FLOP are feasible for {sizes}{more}."
        )


def _most_params(recipe: Plannable, bounds: Bounds) -> float:
    """Return the N beyond which the data are too few at any budget."""
    low_ratio = bounds.tokens_per_param[0]
    if not recipe.unique_tokens or not low_ratio:
        return math.inf
    return bounds.max_epochs * recipe.unique_tokens / low_ratio


def affordable_budgets(
    recipe: Plannable, size: SizeLike, bounds: Bounds, convention: Convention
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


def nothing_feasible(
    recipe: Plannable, skipped: Sequence[Skipped], affordable: Affordable | None
) -> str:
    """Return why no cell is feasible, and which budgets would be."""
    cells = [s for s in skipped if s.budget]
    reasons = "; ".join(
        f"{recipe.size}={s.size:g} at {s.budget:.3g} FLOP: {s.reason}" for s in cells[:3]
    ) + (f"; and {len(cells) - 3} more" if len(cells) > 3 else "")
    if affordable is None:
        return (
            f"no run is feasible at any budget ({reasons}). There are "
            f"{recipe.unique_tokens or 0:,} training {recipe.unit}, without what is held out: give "
            f"more data or a smaller batch_size, or {_LOOSEN}."
        )
    return (
        f"no run is feasible ({reasons}). {affordable.sentence(recipe.size)} For others, {_LOOSEN}."
    )
