"""Which runs to train: IsoFLOP slices over a grid of sizes that all budgets share.

For each budget C and size with f FLOP per token, D = C / f, rounded down to whole batches. Cells
that no honest run can fill (too few steps, too few or too many tokens per parameter, data repeated
too often) are left out by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from html import escape
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from .affordable import Affordable, nothing_feasible
from .cells import cells_of, specs_of, warn_of_uncounted, warn_of_weak, without_twins
from .cost import CostEstimate, estimate_cost, job_compute, job_weight
from .errors import PlanError, counted
from .flops import Convention, check_convention, six_nd
from .grid import (
    Bounds,
    Plannable,
    Skipped,
    checked_range,
    parse_budgets,
    positive_int,
    positive_number,
    size_grid,
)
from .records import TOKENS, RunSpec, content_hash

if TYPE_CHECKING:
    import pandas as pd

Reuse = Literal["cooldown"] | None


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
    recipe : Recipe or None
        What :meth:`estimate` measures; no part of the content.
    options : mapping
        What :func:`plan_sweep` was asked for besides budgets and seeds, to plan alike again; no
        part of the content.
    unit : str
        What D counts: the recipe's word, or, without a recipe, the word that was stored; no part
        of the content.
    """

    runs: tuple[RunSpec, ...] = field(repr=False)
    budgets: tuple[float, ...]
    size_name: str
    recipe_name: str
    recipe_id: str
    convention: Convention = "total"
    reuse: Reuse = None
    skipped: tuple[Skipped, ...] = field(default=(), repr=False)
    recipe: Plannable | None = field(default=None, repr=False, compare=False)
    _estimates: list[CostEstimate] = field(
        default_factory=list, init=False, repr=False, compare=False
    )
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    unit: str = field(default=TOKENS, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.recipe is not None:
            object.__setattr__(self, "unit", self.recipe.unit)

    @property
    def plan_id(self) -> str:
        """Content hash of the runs and their labels."""
        beside = ("options", "unit")
        return content_hash({k: v for k, v in self.to_dict().items() if k not in beside})

    @property
    def total_flops(self) -> float:
        """Sum of C over the runs, FLOP."""
        return math.fsum(run.compute for run in self.runs)

    @property
    def trained_flops(self) -> float:
        """FLOP that are really spent: with shared trunks less than :attr:`total_flops`."""
        return math.fsum(job_compute(job) for job in self.jobs())

    def jobs(self) -> tuple[tuple[RunSpec, ...], ...]:
        """Return the runs grouped by trunk, shortest run first; longest job first."""
        groups: dict[str, list[RunSpec]] = {}
        for run in self.runs:
            groups.setdefault(run.trunk_id, []).append(run)
        jobs = [tuple(sorted(group, key=lambda r: r.n_tokens)) for group in groups.values()]
        return tuple(sorted(jobs, key=job_weight, reverse=True))

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
        content = [f.name for f in fields(self) if f.compare]
        plain = {name: getattr(self, name) for name in content}
        return {
            **plain,
            "budgets": list(self.budgets),
            "runs": [run.to_dict() for run in self.runs],
            "skipped": [asdict(skipped) for skipped in self.skipped],
            "options": dict(self.options),
            "unit": self.unit,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], recipe: Plannable | None = None) -> Self:
        """Read back what :meth:`to_dict` wrote."""
        return cls(
            **{
                **data,
                "runs": tuple(RunSpec.from_dict(run) for run in data["runs"]),
                "budgets": tuple(data["budgets"]),
                "skipped": tuple(Skipped(**s) for s in data["skipped"]),
            },
            recipe=recipe,
        )

    def estimate(
        self,
        *,
        workers: int | None = None,
        watts: float | None = None,
        price_per_kwh: float | None = None,
    ) -> CostEstimate:
        """Time a few real steps at the smallest and the largest size; nothing trained is kept.

        A sweep of this plan stores the estimate, to be held against what it then takes.

        Parameters
        ----------
        workers : int, optional
            Runs that train at once. None: one per GPU, or one per core.
        watts : float, optional
            Power of one busy worker. None: 15 W a CPU core; a GPU's own power limit.
        price_per_kwh : float, optional
            Gives the estimate its price.

        Returns
        -------
        CostEstimate
            Time, peak memory and energy, with a range.

        Raises
        ------
        PlanError
            The plan was read back without its recipe.
        """
        if workers is not None:
            workers = positive_int("workers", workers)
        if watts is not None:
            watts = positive_number("watts", watts)
        if self.recipe is None:
            raise PlanError(
                "this plan has no recipe to measure. Make it with plan_sweep(recipe, …)."
            )
        estimate = estimate_cost(
            self.recipe, self.jobs(), workers=workers, watts=watts, price_per_kwh=price_per_kwh
        )
        self._estimates[:] = [estimate]
        return estimate

    @property
    def last_estimate(self) -> CostEstimate | None:
        """What :meth:`estimate` returned last, or None."""
        return self._estimates[0] if self._estimates else None

    def summary(self) -> str:
        """Return one line: how many runs of which sizes, budgets and compute."""
        sizes = sorted({run.size for run in self.runs})
        budgets = sorted({run.budget for run in self.runs})
        saved = ", trunks shared" if self.reuse else ""
        values = f"{sizes[0]:g} to {sizes[-1]:g}" if len(sizes) > 1 else f"{sizes[0]:g}"
        spread = (
            f"{counted(len(budgets), 'budget')} from {budgets[0]:.3g} to {budgets[-1]:.3g} FLOP"
            if len(budgets) > 1
            else f"{budgets[0]:.3g} FLOP"
        )
        return (
            f"{counted(len(self.runs), 'run')} of {self.recipe_name}: {self.size_name} {values} "
            f"at {spread}; {self.trained_flops:.3g} FLOP in all{saved}"
        )

    def __repr__(self) -> str:
        lines = [
            self.summary(),
            self._shown().to_string(index=False, float_format="{:.4g}".format),
        ]
        return "\n".join([*lines, *self._notes()])

    def _repr_html_(self) -> str:
        table = self._shown().to_html(index=False, float_format="{:.4g}".format)
        notes = "".join(f"<li>{escape(note)}</li>" for note in self._notes())
        return f"<p>{escape(self.summary())}</p>{table}<ul>{notes}</ul>"

    def _shown(self) -> pd.DataFrame:
        """Return the frame as a person reads it: with the unit that D has."""
        return self.to_frame().rename(columns={"tokens_per_param": f"{self.unit}_per_param"})

    def _notes(self) -> list[str]:
        return [
            f"left out: {self.size_name}={s.size:g}"
            + (f" at {s.budget:.3g} FLOP" if s.budget else "")
            + f": {s.reason}"
            for s in self.skipped
        ]


def plan_sweep(
    recipe: Plannable,
    compute_budgets: Sequence[float] | tuple[float, float, int],
    n_sizes: int | None = None,
    seeds: int | Sequence[int] = 1,
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
        Sizes per budget, neighbours on the common grid around 20 tokens per parameter; a grid
        denser than a factor of 1.7 in N is thinned first. None: all of the recipe's own
        ``sizes``, or 6 where the planner chooses the grid.
    seeds : int or sequence of int
        Repeats of every run; a number n means seeds 0 to n - 1.
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
    bounds = Bounds(
        min_steps=positive_int("min_steps", min_steps),
        tokens_per_param=checked_range(tokens_per_param),
        max_epochs=positive_number("max_epochs", max_epochs),
    )
    check_convention(convention)
    if size_multiple is not None:
        size_multiple = positive_int("size_multiple", size_multiple)
    try:
        budgets = parse_budgets(compute_budgets)
    except PlanError as error:
        found = Affordable.of(recipe, bounds, convention, size_multiple)
        hint = f" {found.sentence(recipe.size)}" if found else ""
        raise PlanError(f"{error}{hint}") from None
    seeds = _seeds(seeds)
    if n_sizes is not None:
        n_sizes = positive_int("n_sizes", n_sizes)
    _check_reuse(reuse, recipe)
    grid, skipped = size_grid(recipe, budgets[-1], bounds, size_multiple)
    window = n_sizes or (None if recipe.sizes is not None else 6)
    cells, left_out = cells_of(recipe, budgets, grid, bounds, convention, window)
    skipped += left_out
    if not cells:
        found = Affordable.of(recipe, bounds, convention, size_multiple)
        raise PlanError(nothing_feasible(recipe, skipped, found))
    if convention == "matmul":
        warn_of_uncounted([size for _, size in cells])
    rates = recipe.learning_rates(sorted({size.value for _, size in cells}))
    runs = specs_of(recipe, cells, seeds, rates, convention, reuse)
    runs, twice = without_twins(runs)
    warn_of_weak(runs, budgets, recipe.unit)
    return SweepPlan(
        runs=runs,
        budgets=budgets,
        size_name=recipe.size,
        recipe_name=recipe.name,
        recipe_id=recipe.recipe_id,
        convention=convention,
        reuse=reuse,
        skipped=tuple(skipped + twice),
        recipe=recipe,
        options={
            "n_sizes": n_sizes,
            "min_steps": bounds.min_steps,
            "tokens_per_param": list(bounds.tokens_per_param),
            "max_epochs": bounds.max_epochs,
            "size_multiple": size_multiple,
        },
    )


def _seeds(seeds: object) -> tuple[int, ...]:
    if isinstance(seeds, np.ndarray):
        seeds = seeds.tolist()
    if not isinstance(seeds, Sequence) or isinstance(seeds, str):
        return tuple(range(positive_int("seeds", seeds)))
    if not seeds or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in seeds):
        raise PlanError(f"seeds is {seeds!r}. Give a number of repeats, or whole numbers >= 0.")
    return tuple(dict.fromkeys(seeds))


def _check_reuse(reuse: object, recipe: Plannable) -> None:
    if reuse not in (None, "cooldown"):
        raise PlanError(f'reuse is {reuse!r}. Choose "cooldown" or None.')
    if reuse == "cooldown" and recipe.schedule != "wsd":
        raise PlanError(
            f'reuse="cooldown" needs schedule="wsd", but the recipe has {recipe.schedule!r}: its '
            'rate depends on the run\'s length from the start. Use schedule="wsd" or reuse=None.'
        )
