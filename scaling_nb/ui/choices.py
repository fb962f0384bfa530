"""What a person chooses of a plan, and the runs that a remedy adds: values, no widgets."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import PlanError, ScalingError
from ..fit import FitWarning
from ..flops import Convention
from ..grid import (
    GUESSED_TOKENS_PER_PARAM,
    SIZE_LADDER,
    Bounds,
    feasible,
    size_grid,
    spread_budgets,
)
from ..plan import Reuse, SweepPlan, plan_sweep
from ..records import RunSpec

if TYPE_CHECKING:
    from ..training.recipe import Recipe

_FOUND = 7
_SIZES = 3
"""Sizes that a budget needs for a minimum."""
_MOST_BUDGETS, _CLOSEST = 20, 1.5
_STEPS, _EPOCHS, _RATIO = 60, 4.0, (0.1, 1000.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChoice:
    """The arguments of a plan.

    Attributes
    ----------
    budgets : tuple of float, FLOP, ascending
    n_sizes : int or None
        Sizes a budget; None: as many as there are.
    seeds : int
        Repeats, where `seed_list` does not name them.
    convention, schedule : str
    reuse : "cooldown" or None
    min_steps, tokens_per_param, max_epochs, size_multiple
        Bounds of :func:`plan_sweep`, kept from a plan made in Python.
    seed_list : tuple of int
        Seeds of a plan made in Python, while `seeds` is their number.
    """

    budgets: tuple[float, ...]
    n_sizes: int | None = None
    seeds: int = 1
    convention: Convention = "total"
    schedule: str = "wsd"
    reuse: Reuse = None
    min_steps: int = _STEPS
    tokens_per_param: tuple[float, float] = _RATIO
    max_epochs: float = _EPOCHS
    size_multiple: int | None = None
    seed_list: tuple[int, ...] = ()

    @classmethod
    def of(cls, plan: SweepPlan) -> PlanChoice:
        """Return the choice that a plan shows.

        A plan stored before options were kept is asked for what its runs need.
        """
        seeds = tuple(sorted({run.seed for run in plan.runs}))
        ratios = [run.tokens_per_param for run in plan.runs]
        needed = {
            "min_steps": min(_STEPS, *(run.n_steps for run in plan.runs)),
            "tokens_per_param": (min(_RATIO[0], *ratios), max(_RATIO[1], *ratios)),
            "max_epochs": max(_EPOCHS, *(run.epochs for run in plan.runs)),
        }
        asked = {**needed, **plan.options}
        asked["tokens_per_param"] = tuple(asked["tokens_per_param"])
        return cls(
            budgets=plan.budgets,
            seeds=len(seeds),
            seed_list=seeds,
            convention=plan.convention,
            schedule=plan.runs[0].schedule,
            reuse=plan.reuse,
            **asked,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan and the sentences that came with it."""

    plan: SweepPlan
    recipe: Recipe
    notes: tuple[str, ...]


def guess(recipe: Recipe) -> PlanChoice:
    """Return up to four budgets whose minima should lie inside the recipe's sizes.

    C = 20 · N · FLOP per token at a third and at two thirds of the way through the sizes; where the
    data or the bounds of a plan leave a budget fewer than three sizes, the nearest that have them.

    References
    ----------
    Hoffmann et al. 2022: about 20 tokens per parameter.
    """
    compute = []
    for value in recipe.sizes or [v for v in SIZE_LADDER if v >= recipe.smallest]:
        try:
            size = recipe.inspect_size(value)
        except ScalingError:
            continue
        compute.append(GUESSED_TOKENS_PER_PARAM * size.counts.total * size.flops_per_token)
        if recipe.sizes is None and len(compute) == 2 * _FOUND:
            break
    compute.sort()
    last = len(compute) - 1
    low, high = (compute[round(share * last)] for share in (1 / 3, 2 / 3))
    # Enough steps for the schedule at the smaller end, whatever the sizes.
    high = max(high, 8.0 * low)
    return PlanChoice(
        budgets=_trainable(recipe, low, high),
        schedule=recipe.schedule,
        reuse="cooldown" if recipe.schedule == "wsd" else None,
    )


def _trainable(recipe: Recipe, low: float, high: float) -> tuple[float, ...]:
    """Return budgets from `low` to `high`, moved to where enough sizes can be trained.

    They stay a factor of :data:`_CLOSEST` apart: fewer rather than closer.
    """
    bounds = Bounds(min_steps=_STEPS, tokens_per_param=_RATIO, max_epochs=_EPOCHS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the plan itself will say it
        grid, _ = size_grid(recipe, high, bounds, None)

    def n_sizes(budget: float) -> int:
        return len(feasible(recipe, budget, grid, bounds, "total")[0])

    wanted = _apart(low, high)
    if min(map(n_sizes, wanted)) >= _SIZES:
        return wanted
    tried = [float(f"{low * 10 ** (k / 20):.2g}") for k in range(-60, 81)]
    counts = {budget: n_sizes(budget) for budget in tried}
    most = min(_SIZES, max(counts.values()))
    if not most:
        return wanted
    enough = [budget for budget, n in counts.items() if n >= most]
    inside = [budget for budget in enough if low <= budget <= high]
    # A stretch that is too short to tell how N* grows is widened towards smaller budgets.
    floor = min(inside or enough, default=low)
    top = max(inside or enough, default=high)
    floor = max(min(enough), min(floor, top / 8))
    return tuple(budget for budget in _apart(floor, top) if n_sizes(budget) >= most) or (top,)


def _apart(low: float, high: float) -> tuple[float, ...]:
    """Return two to four budgets that are far enough apart, spread in log C; or one."""
    n = min(4, 1 + int(math.log(high / low) / math.log(_CLOSEST) + 1e-9))
    if n == 1:
        return (high,)
    digits = 1 if high / low >= 8 else 2
    spread = (low * (high / low) ** (k / (n - 1)) for k in range(n))
    return tuple(float(f"{budget:.{digits}g}") for budget in spread)


def parse(text: str) -> tuple[float, ...]:
    """Return typed budgets: ``1e12, 3e12, 1e13``, or ``1e12 to 1e13 x 4``.

    Raises
    ------
    PlanError
        If it cannot be read, with an example of what can.
    """
    words = text.replace("×", "x").replace("–", " to ").replace("..", " to ")
    try:
        if " to " in words:
            ends, _, count = words.partition("x")
            low, high = (float(part) for part in ends.split(" to "))
            return _range(text, low, high, int(count or 4))
        return _list(text, [float(part) for part in words.replace(",", " ").split()])
    except ValueError as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(
            f"{text!r} are no budgets. Write FLOP, such as 1e12, 3e12, 1e13, or a range, such as "
            "1e12 to 1e13 x 4."
        ) from None


def _range(text: str, low: float, high: float, count: int) -> tuple[float, ...]:
    _check_positive(text, (low, high))
    if not low < high:
        raise PlanError(
            f"{text!r} does not go from a smaller budget to a larger one. Write "
            + (f"{high:g} to {low:g} x {max(count, 2)}." if high < low else f"{low:g} alone.")
        )
    if not 2 <= count <= _MOST_BUDGETS:
        raise PlanError(
            f"{text!r} asks for {count} budgets, and a range has 2 to {_MOST_BUDGETS}. Write "
            f"{low:g} to {high:g} x 4" + (f", or {low:g} alone." if count == 1 else ".")
        )
    return spread_budgets(low, high, count)


def _list(text: str, budgets: Sequence[float]) -> tuple[float, ...]:
    if not budgets:
        raise ValueError
    _check_positive(text, budgets)
    if len(budgets) == 3 and budgets[2] == int(budgets[2]) <= 1000 < budgets[1]:
        low, high, count = budgets
        raise PlanError(
            f"{text!r} ends in a budget of {count:g} FLOP. For a range write {low:g} to {high:g} x "
            f"{count:g}."
        )
    ascending = sorted(set(budgets))
    if list(budgets) != ascending:
        raise PlanError(
            f"{text!r} are not ascending budgets, each once. Write "
            f"{', '.join(f'{budget:g}' for budget in ascending)}."
        )
    return tuple(budgets)


def _check_positive(text: str, budgets: Sequence[float]) -> None:
    if wrong := [b for b in budgets if not (math.isfinite(b) and b > 0)]:
        raise PlanError(
            f"{text!r} has {wrong[0]:g} in it, which is no positive number of FLOP. Write budgets "
            "such as 1e12, 3e12, 1e13."
        )


def make_plan(recipe: Recipe, choice: PlanChoice) -> Planned:
    """Plan what was chosen, with every warning as a sentence.

    Raises
    ------
    ScalingError
        The choice is impossible; the message says why, and what is possible.
    """
    if choice.schedule != recipe.schedule:
        recipe = dataclasses.replace(recipe, schedule=choice.schedule)  # type: ignore[arg-type]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        plan = plan_sweep(
            recipe,
            list(choice.budgets),
            choice.n_sizes,
            choice.seed_list if len(choice.seed_list) == choice.seeds else choice.seeds,
            convention=choice.convention,
            reuse=choice.reuse,
            min_steps=choice.min_steps,
            tokens_per_param=choice.tokens_per_param,
            max_epochs=choice.max_epochs,
            size_multiple=choice.size_multiple,
        )
    return Planned(plan=plan, recipe=recipe, notes=tuple(str(w.message) for w in said))


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What a button beside a warning would do: train `sizes` at `budget` with `seeds`."""

    label: str
    budget: float
    sizes: tuple[int | float, ...]
    seeds: tuple[int, ...]


def remedy_for(warning: FitWarning, plan: SweepPlan | None) -> Remedy | None:
    """Return the runs that would answer a warning, or None where no button can."""
    budget = warning.values.get("budget")
    if plan is None or budget is None:
        return None
    nearest = min(plan.budgets, key=lambda b: abs(math.log(b / budget)))
    here = [run for run in plan.runs if run.budget == nearest]
    sizes = sorted({run.size for run in here})
    seeds = tuple(sorted({run.seed for run in here}))
    if not sizes or abs(math.log(nearest / budget)) > 0.1:
        return None
    if warning.code == "minimum_not_bracketed":
        smaller = _at_smallest(warning, here)
        new = _beyond(sizes, plan, smaller=smaller)
        runs = len(new) * len(seeds)
        words = "smaller" if smaller else "larger"
        return (
            Remedy(label=f"+{runs} {words}", budget=nearest, sizes=new, seeds=seeds)
            if new
            else None
        )
    if warning.code in ("minimum_uncertain", "no_minimum"):
        seed = max(seeds) + 1
        return Remedy(
            label=f"+{len(sizes)} runs (seed {seed})",
            budget=nearest,
            sizes=tuple(sizes),
            seeds=(seed,),
        )
    return None


def _at_smallest(warning: FitWarning, here: Sequence[RunSpec]) -> bool:
    """Return whether the best run is at the small end of its budget's sizes.

    Approach 3 names the best run's N, Approach 2 the ends of the grid and what to add.
    """
    n_params = warning.values.get("n_params")
    if n_params is None:
        return "N <" in warning.remedy
    sizes = [run.n_params for run in here]
    return abs(math.log(n_params / min(sizes))) <= abs(math.log(n_params / max(sizes)))


def _beyond(
    sizes: Sequence[int | float], plan: SweepPlan, *, smaller: bool
) -> tuple[int | float, ...]:
    """Return two sizes past the edge: of the plan's own where there are, else in its ratio."""
    known = sorted({run.size for run in plan.runs})
    edge = sizes[0] if smaller else sizes[-1]
    own = [v for v in known if (v < edge if smaller else v > edge)]
    own = own[::-1] if smaller else own
    ratio = (known[-1] / known[0]) ** (1 / max(len(known) - 1, 1)) if len(known) > 1 else 1.5
    step = 1 / max(ratio, 1.2) if smaller else max(ratio, 1.2)
    last = own[-1] if own else edge
    whole = all(float(v).is_integer() for v in known)
    # Even numbers: heads and groups divide them more often than odd ones.
    further = [2 * round(last * step**k / 2) if whole else last * step**k for k in (1, 2)]
    new = [*own, *(v for v in further if v > 0 and (v < last if smaller else v > last))]
    return tuple(dict.fromkeys(new))[:2]


def extended(plan: SweepPlan, recipe: Recipe, remedy: Remedy) -> SweepPlan:
    """Return the plan with a remedy's runs besides its own.

    Raises
    ------
    PlanError
        None of them can be trained.
    """
    wider = dataclasses.replace(recipe, sizes=remedy.sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two sizes are few, and meant to be
        extra = plan_sweep(
            wider,
            [remedy.budget],
            None,
            remedy.seeds,
            convention=plan.convention,
            reuse=plan.reuse,
            # As much as the plan itself asked for, or less: a remedy reaches past its edges.
            min_steps=min(_STEPS, *(run.n_steps for run in plan.runs)),
            max_epochs=max(_EPOCHS, *(run.epochs for run in plan.runs)),
            tokens_per_param=(0.0, math.inf),
        )
    if extra.recipe_id != plan.recipe_id:
        raise PlanError("the recipe has changed since the plan was made. Plan anew.")
    runs = {run.run_id: run for run in (*plan.runs, *extra.runs)}
    if len(runs) == len(plan.runs):
        raise PlanError("these runs are in the plan already. Start it to train them.")
    ordered = sorted(runs.values(), key=lambda run: (run.budget, run.n_params, run.seed))
    return dataclasses.replace(plan, runs=tuple(ordered), recipe=recipe)
