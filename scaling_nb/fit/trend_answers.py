"""From power laws through optima to an answer: shared by Approaches 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .allocate import beyond
from .allocation import Allocation, Scope
from .compute import FlopModel, learn_flops, positive
from .notes import FitWarning
from .trend import Trends, interval

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlopsPerToken:
    """FLOP per token against N, from the runs' own C / D.

    Interpolated in ln N between the runs' sizes; beyond them it grows as ``beyond`` does.

    Attributes
    ----------
    sizes : ndarray, shape (n_sizes,), parameters
        Ascending.
    values : ndarray, shape (n_sizes,), FLOP per token
    beyond : FlopModel
    """

    sizes: Array = field(repr=False)
    values: Array = field(repr=False)
    beyond: FlopModel

    @classmethod
    def of(cls, n_params: Array, n_tokens: Array, compute: Array) -> Self:
        """Take the geometric mean of C / D at each distinct size."""
        sizes, inverse = np.unique(n_params, return_inverse=True)
        mean = np.bincount(inverse, np.log(compute / n_tokens)) / np.bincount(inverse)
        few = np.unique(np.linspace(0, len(n_params) - 1, 2000).astype(int))
        model = learn_flops(n_params[few], n_tokens[few], compute[few])
        return cls(sizes=sizes, values=np.exp(mean), beyond=model)

    def at(self, n_params: ArrayLike) -> Array:
        """Return FLOP per token at `n_params`, in its shape."""
        n = np.asarray(n_params, float)
        edge = np.clip(n, self.sizes[0], self.sizes[-1])
        inside = np.exp(np.interp(np.log(edge), np.log(self.sizes), np.log(self.values)))
        per_param = self.beyond.per_param_token
        return np.asarray(inside * (n * per_param(n)) / (edge * per_param(edge)))


def answer_from_trends(
    compute: float,
    trends: Trends,
    flops_per_token: FlopsPerToken,
    *,
    scope: Scope,
    factor: float = float("nan"),
    within: float = float("nan"),
) -> Allocation:
    """Return N* from its power law, D* = C / (FLOP per token at N*), and L* from its own.

    Parameters
    ----------
    compute : float, FLOP
    trends : Trends
    flops_per_token : FlopsPerToken
    scope : Scope
    factor, within : float
        Sizes within this factor of N* lose less than the relative loss `within`.

    Raises
    ------
    FitError
        If `compute` is not positive.
    """
    compute = positive("compute", compute)
    n = float(trends.n_params.at(compute))
    d = compute / float(flops_per_token.at(n))
    n_samples = trends.n_params.resampled(compute)[:, 0]
    d_samples = compute / flops_per_token.at(n_samples)
    samples = {
        "n_params": n_samples,
        "n_tokens": d_samples,
        "loss": trends.loss.resampled(compute)[:, 0],
        "tokens_per_param": d_samples / n_samples,
    }
    bounds = {k: interval(v, trends.n_params.level) for k, v in samples.items() if len(v)}
    extrapolation = float(compute / scope.C[1])
    return Allocation(
        compute=float(compute),
        n_params=n,
        n_tokens=d,
        loss=float(trends.loss.at(compute)),
        tokens_per_param=d / n,
        intervals={k: (float(lo), float(hi)) for k, (lo, hi) in bounds.items()},
        near_optimal=(n / factor, n * factor),
        within=within,
        extrapolation=extrapolation,
        unit=scope.unit,
        unique_tokens=d,
        lifetime_compute=float(compute),
        notes=(*beyond(compute, scope), *_floorless(extrapolation, trends)),
    )


def _floorless(extrapolation: float, trends: Trends) -> Iterator[FitWarning]:
    if extrapolation > 1.0 and trends.loss.floor == 0.0:
        yield FitWarning(
            code="loss_without_floor",
            message="The loss follows a power law without irreducible loss, so beyond the runs it "
            "is too low.",
            remedy="Take the loss from fit_law, or add budgets: four optima or more can show a "
            "floor.",
        )
