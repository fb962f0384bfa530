"""IsoFLOP slices of a run table, and resamples of their losses.

A resample keeps every run's N and D and draws its loss anew: the wild bootstrap. Resampling rows
instead would leave half of all six-run parabolas with fewer than four distinct sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..budgets import infer_budgets
from ..errors import TooFewRunsError
from ..records import RunTable

Array = NDArray[np.float64]

SAME_BUDGET = 0.005
"""Budgets that differ by less than this share are one slice."""
_PRIOR_DEGREES = 4.0
"""Weight, in residuals, of the noise pooled over slices against a run's own residual: a single
residual is a poor estimate of its run's noise."""
_MAX_LEVERAGE = 0.95
_MAX_DRAWS = 20_000_000
_MIN_RESAMPLES = 40
"""A table of a million rows gets 40 resamples: its noise is small and memory finite."""
_WEBB = np.sqrt([0.5, 1.0, 1.5])


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The runs of one budget: ln N, loss, ln C and ln(FLOP per token), each shape (n_runs,)."""

    budget: float
    rows: NDArray[np.intp]
    log_n: Array
    loss: Array
    log_c: Array
    log_flops_per_token: Array

    def along(self, values: Array, at: Array) -> Array:
        """Interpolate `values`, averaged over repeats of a size, linearly in ln N."""
        sizes, inverse = np.unique(self.log_n, return_inverse=True)
        mean = np.bincount(inverse, values) / np.bincount(inverse)
        return np.asarray(np.interp(at, sizes, mean))


class FittedSlice(Protocol):
    """What resampling needs of a parabola."""

    @property
    def slice(self) -> Slice:
        """The runs of the budget."""

    @property
    def keep(self) -> NDArray[np.intp]:
        """The slice's rows that were fitted."""

    @property
    def leverage(self) -> Array:
        """Diagonal of the hat matrix, shape (n_kept,)."""

    @property
    def loss(self) -> Array:
        """Losses that were fitted, shape (n_kept,)."""

    @property
    def fitted(self) -> Array:
        """The fitted values, shape (n_kept,)."""


def slices_of(runs: RunTable) -> tuple[list[Slice], bool]:
    """Return the table's IsoFLOP slices, budgets ascending, and whether budgets were inferred.

    Raises
    ------
    TooFewRunsError
        If there is no ``budget`` column and C does not cluster.
    """
    budget = runs.column("budget").astype(float)
    inferred = not np.isfinite(budget).any()
    if inferred:
        budget = infer_budgets(runs.N, runs.C)
        if not np.isfinite(budget).any():
            raise TooFewRunsError(
                f"these {len(runs)} runs do not fall into IsoFLOP slices: there is no budget "
                "column, and their compute C does not cluster into groups of three or more sizes. "
                "Name the slices in a column `budget`, or use fit_law, which needs none."
            )
    log_n, log_c, log_d = np.log(runs.N), np.log(runs.C), np.log(runs.D)
    rows = np.flatnonzero(np.isfinite(budget))
    rows = rows[np.argsort(budget[rows], kind="stable")]
    cuts = np.flatnonzero(np.diff(np.log(budget[rows])) > SAME_BUDGET) + 1
    slices = [
        Slice(
            budget=float(np.median(budget[part])),
            rows=part,
            log_n=log_n[part],
            loss=runs.L[part],
            log_c=log_c[part],
            log_flops_per_token=(log_c - log_d)[part],
        )
        for part in np.split(rows, cuts)
    ]
    return slices, inferred


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampler:
    """Draws losses for every slice at once, so that runs of one group share their noise.

    Attributes
    ----------
    multipliers : ndarray, shape (n_resamples, n_groups)
        Webb's six-point law, each row scaled by √(ν / χ²_ν) for the ν residual degrees of
        freedom there are, which gives the intervals their Student tails.
    group : ndarray of int, shape (n_runs,)
    noise : float
        Pooled standard deviation of ln loss around the parabolas.
    degrees : int
        ν, runs in windows minus three for each slice.
    """

    multipliers: Array
    group: NDArray[np.intp]
    noise: float
    degrees: int

    @classmethod
    def of(
        cls, runs: RunTable, fits: Sequence[FittedSlice], n: int, rng: np.random.Generator
    ) -> Self:
        """Draw the multipliers for `n` resamples; none where there is no residual to draw from."""
        degrees = sum(max(len(f.keep) - 3, 0) for f in fits)
        square = sum(float(np.sum((f.loss / f.fitted - 1.0) ** 2)) for f in fits)
        names = runs.column("group").astype(str)
        own = np.array([f"\0{i}" for i in range(len(names))])
        _, group = np.unique(np.where(names == "", own, names), return_inverse=True)
        n_groups = int(group.max()) + 1 if len(group) else 0
        n = min(n, max(_MIN_RESAMPLES, _MAX_DRAWS // max(n_groups, 1))) if degrees else 0
        shape = (n, n_groups)
        multipliers = rng.choice(np.concatenate([_WEBB, -_WEBB]), size=shape)
        multipliers *= np.sqrt(degrees / rng.chisquare(max(degrees, 1), size=(n, 1)))
        return cls(
            multipliers=multipliers,
            group=group,
            noise=float(np.sqrt(square / degrees)) if degrees else np.nan,
            degrees=degrees,
        )

    def losses(self, fit: FittedSlice) -> Array:
        """Return losses of the window's runs, shape (1 + n_resamples, n_kept); row 0 the data."""
        residual = fit.loss / fit.fitted - 1.0
        own = residual**2 / np.maximum(1.0 - fit.leverage, 1.0 - _MAX_LEVERAGE)
        shrunk = (own + _PRIOR_DEGREES * self.noise**2) / (1.0 + _PRIOR_DEGREES)
        scale = np.where(residual < 0, -1.0, 1.0) * np.sqrt(shrunk)
        drawn = self.multipliers[:, self.group[fit.slice.rows[fit.keep]]]
        return np.concatenate([fit.loss[None], fit.fitted * (1.0 + drawn * scale)])
