"""Runs drawn from a known law: to test a fit, to plan a sweep, to teach.

loss = L(N, D) · exp(noise · ε_run + trunk_noise · ε_trunk), both ε standard normal. Cells that
branch from one training trunk (same size, same seed, cut at several budgets) share ε_trunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .curves import Curve
from .errors import PlanError
from .laws import Law
from .records import COLUMNS, RunTable

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cells:
    """Runs to draw: N, D, budget and trunk, each shape (n_cells,).

    Cells of equal ``trunk`` share their noise; ``budget`` is NaN where there is none.
    """

    N: Array
    D: Array
    budget: Array
    trunk: NDArray[np.intp]


class Design(Protocol):
    """Decides which runs there are."""

    def cells(self, rng: np.random.Generator) -> Cells:
        """Return the cells, without repeats."""


class Predicts(Protocol):
    """Anything that predicts a loss: a fitted or published law."""

    def predict(self, N: Any, D: Any) -> Any:
        """Return the loss at N parameters and D tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoFlopDesign:
    """At each budget, `n_sizes` sizes log-spaced over `span` around a centre, D = C / 6N.

    Attributes
    ----------
    budgets : sequence of float, FLOP
    n_sizes : int
    span : float
        Largest over smallest size of a budget.
    tokens_per_param : float
        D / N at the centre.
    off_center : float
        Factor by which the grid's centre is moved, to see what that does to Approach 2.
    shared_sizes : bool
        Take every budget's sizes from one geometric grid, so that cells of one size are branches
        of one trunk.
    """

    budgets: Sequence[float]
    n_sizes: int = 6
    span: float = 16.0
    tokens_per_param: float = 20.0
    off_center: float = 1.0
    shared_sizes: bool = True

    def __post_init__(self) -> None:
        if not len(self.budgets) or self.n_sizes < 1 or not self.span > 1:
            raise PlanError(
                f"a design of {len(self.budgets)} budgets and {self.n_sizes} sizes over a span of "
                f"{self.span:g} has no runs. Give budgets, n_sizes >= 1 and span > 1."
            )

    def cells(self, rng: np.random.Generator) -> Cells:
        """Return the grid; nothing is random."""
        budgets = np.asarray(self.budgets, float)
        center = np.log(np.sqrt(budgets / (6.0 * self.tokens_per_param)) * self.off_center)
        step = np.log(self.span) / max(self.n_sizes - 1, 1)
        offsets = np.arange(self.n_sizes) - (self.n_sizes - 1) / 2
        position = center[:, None] / step + offsets
        if self.shared_sizes:
            position = np.round(position)
        n = np.exp(position * step).ravel()
        budget = np.repeat(budgets, self.n_sizes)
        return Cells(N=n, D=budget / (6.0 * n), budget=budget, trunk=_same(n))


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomDesign:
    """`n_runs` runs with ln N and ln D uniform within their ranges, (low, high)."""

    n_runs: int
    n_params: tuple[float, float] = (1e7, 1e10)
    n_tokens: tuple[float, float] = (1e9, 1e12)

    def cells(self, rng: np.random.Generator) -> Cells:
        """Draw N and D."""
        n, d = (
            low * (high / low) ** rng.random(self.n_runs)
            for low, high in (self.n_params, self.n_tokens)
        )
        return Cells(N=n, D=d, budget=np.full(self.n_runs, np.nan), trunk=np.arange(self.n_runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class GridDesign:
    """Every N with every D; one N is one trunk."""

    n_params: Sequence[float]
    n_tokens: Sequence[float]

    def cells(self, rng: np.random.Generator) -> Cells:
        """Return the product; nothing is random."""
        n = np.repeat(np.asarray(self.n_params, float), len(self.n_tokens))
        d = np.tile(np.asarray(self.n_tokens, float), len(self.n_params))
        return Cells(N=n, D=d, budget=np.full(len(n), np.nan), trunk=_same(n))


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedRatioDesign:
    """One run for each N with D = tokens_per_param · N: what tells no α from β."""

    n_params: Sequence[float]
    tokens_per_param: float = 20.0

    def cells(self, rng: np.random.Generator) -> Cells:
        """Return the line; nothing is random."""
        n = np.asarray(self.n_params, float)
        d = n * self.tokens_per_param
        return Cells(N=n, D=d, budget=np.full(len(n), np.nan), trunk=np.arange(len(n)))


def _same(values: Array) -> NDArray[np.intp]:
    return np.unique(np.round(np.log(values), 9), return_inverse=True)[1]


def simulate(
    law: Law | Predicts,
    design: Design,
    noise: float = 0.0,
    seed: int = 0,
    *,
    params: Mapping[str, float] | None = None,
    trunk_noise: float = 0.0,
    seeds: int = 1,
) -> RunTable:
    """Draw runs from a known law: loss = L(N, D) · exp(noise · ε_run + trunk_noise · ε_trunk).

    Parameters
    ----------
    law : Law, or anything with ``predict(N, D)``
        A fit or a published law; a bare :class:`Law` needs `params`.
    design : Design
        Which runs: :class:`IsoFlopDesign`, :class:`RandomDesign`, :class:`GridDesign`,
        :class:`FixedRatioDesign`, or your own with ``cells(rng)``.
    noise : float
        Standard deviation of ln loss, independent for each run.
    seed : int
        Of the random numbers.
    params : mapping of str to float
        Parameters of a bare law.
    trunk_noise : float
        Standard deviation of ln loss shared by the cells of one trunk; their ``group`` is set.
    seeds : int
        Repeats of every cell; each repeat of a trunk is a trunk of its own.

    Returns
    -------
    RunTable
        C = 6·N·D.

    Raises
    ------
    PlanError
        If a bare law comes without all of its `params`, or the noise is negative.
    """
    if noise < 0 or trunk_noise < 0 or seeds < 1:
        raise PlanError("noise and trunk_noise must be >= 0, and seeds >= 1.")
    rng = np.random.default_rng(seed)
    cells = design.cells(rng)
    n_cells, n_trunks = len(cells.N), int(cells.trunk.max(initial=-1)) + 1
    n, d, budget = (np.tile(x, seeds) for x in (cells.N, cells.D, cells.budget))
    repeat = np.repeat(np.arange(seeds), n_cells)
    trunk = np.tile(cells.trunk, seeds) + n_trunks * repeat
    own = rng.normal(size=len(n))
    shared = rng.normal(size=n_trunks * seeds)[trunk]
    columns: dict[str, NDArray[Any]] = {
        "run_id": np.array([f"sim-{i:04d}" for i in range(len(n))], dtype=object),
        "N": n,
        "D": d,
        "C": 6.0 * n * d,
        "loss": _losses(law, params, n, d) * np.exp(noise * own + trunk_noise * shared),
        "budget": budget,
        "seed": repeat.astype(float),
        "status": np.full(len(n), "finished", dtype=object),
        "n_total": n,
    }
    if trunk_noise:
        columns["group"] = np.array([f"trunk-{k}" for k in trunk], dtype=object)
    empty = {"group", "schedule", "message", "excluded"}
    for name in COLUMNS:
        if name not in columns:
            value = "" if name in empty else np.nan
            columns[name] = np.full(len(n), value, dtype=object if name in empty else float)
    return RunTable(columns={name: columns[name] for name in COLUMNS})


def _losses(law: Law | Predicts, params: Mapping[str, float] | None, n: Array, d: Array) -> Array:
    if isinstance(law, Law):
        given = {} if params is None else params
        if lacking := [name for name in law.param_names if name not in given]:
            raise PlanError(
                f"{law.name} alone has no numbers for {', '.join(lacking)}. Pass params={{...}} "
                f"with {', '.join(law.param_names)}, or a fitted or published law."
            )
        return law.predict(given, n, d)
    return np.asarray(law.predict(n, d), float)


def simulate_curves(
    law: Predicts,
    n_params: ArrayLike,
    n_tokens: float,
    noise: float = 0.0,
    seed: int = 0,
    *,
    points: int = 200,
) -> tuple[Curve, ...]:
    """Draw training curves whose every point is the law's own loss at that many tokens.

    Parameters
    ----------
    law : anything with ``predict(N, D)``
    n_params : array_like, shape (n_curves,), parameters
    n_tokens : float, tokens
        Where each curve ends; it starts at a thousandth of it.
    noise : float
        Standard deviation of ln loss, independent for each point.
    seed : int
    points : int
        Points of each curve, log-spaced.
    """
    rng = np.random.default_rng(seed)
    tokens = np.geomspace(n_tokens / 1000.0, n_tokens, points)
    return tuple(
        Curve.of(
            f"sim-{k}",
            size,
            tokens,
            np.asarray(law.predict(np.full(points, size), tokens), float)
            * np.exp(noise * rng.normal(size=points)),
            decayed=True,
        )
        for k, size in enumerate(np.atleast_1d(np.asarray(n_params, float)))
    )
