"""A short learning-rate range test, for models that come without a rate.

At the smallest and the largest size a few rates are tried for about 100 steps each, walking
downhill from 3e-3 in factors of 2 until the best rate has a worse one on either side; the vertex
of the parabola through these three, in log rate, is that size's rate. Between the two sizes
ln(rate) is linear in ln(N). A rate that is right at one end of the grid and wrong at the other
bends every curve that follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import RecipeError
from .devices import use_one_thread
from .outcomes import Diverged
from .trainer import CurvePiece, Trainable, Trainer

FIRST_RATE = 3e-3
FACTOR = 2.0
STEPS = 100
_LOWEST, _HIGHEST = 1e-6, 3.0
_LAST_SHARE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTest:
    """Rates that were tried at one size, and the best.

    Attributes
    ----------
    size : int or float
    n_params : int, parameters
    rates : tuple of float
        Ascending.
    losses : tuple of float, nats per token
        Mean training loss of the last fifth of the steps; infinite where it diverged.
    best : float
    """

    size: int | float
    n_params: int
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    best: float


def range_test(
    recipe: Trainable,
    value: int | float,
    n_params: int,
    *,
    steps: int = STEPS,
    check: Callable[[], None] = lambda: None,
) -> RangeTest:
    """Find the rate of one size; deterministic.

    Raises
    ------
    RecipeError
        When training diverges at every rate.
    """
    tried: dict[float, float] = {}

    def loss_at(rate: float) -> float:
        if rate not in tried:
            tried[rate] = _final_loss(recipe, value, rate, steps, check)
        return tried[rate]

    best = FIRST_RATE
    while True:
        neighbours = [r for r in (best / FACTOR, best * FACTOR) if _LOWEST <= r <= _HIGHEST]
        better = min(neighbours, key=loss_at)
        # Where everything so far diverged, only lower rates can help.
        if not math.isfinite(loss_at(best)) and best / FACTOR >= _LOWEST:
            best = best / FACTOR
        elif loss_at(better) < loss_at(best):
            best = better
        else:
            break
    if not math.isfinite(loss_at(best)):
        raise RecipeError(
            f"training diverged at every learning rate from {_LOWEST:g} to {FIRST_RATE:g} "
            f"(size {value}). Check the data's scale and the initialisation, or give lr."
        )
    rates = tuple(sorted(tried))
    return RangeTest(
        size=value,
        n_params=n_params,
        rates=rates,
        losses=tuple(tried[r] for r in rates),
        best=_vertex(best, tried),
    )


def interpolate_rates(tests: Sequence[RangeTest], n_params: Sequence[int]) -> list[float]:
    """Return the rate of each N: ln(rate) linear in ln(N) through the tested sizes."""
    x = [math.log(test.n_params) for test in tests]
    y = [math.log(test.best) for test in tests]
    # Two digits: a rate is not known better, and it is what the plan shows.
    return [float(f"{math.exp(v):.2g}") for v in np.interp(np.log(n_params), x, y)]


def _final_loss(
    recipe: Trainable, value: int | float, rate: float, steps: int, check: Callable[[], None]
) -> float:
    losses: list[float] = []

    def keep(piece: CurvePiece) -> None:
        losses.extend(piece.loss.tolist())

    with use_one_thread():
        trainer = Trainer(recipe, value, seed=0, lr=rate)
        try:
            trainer.train(steps, steps, report=keep, check=check)
        except Diverged:
            return math.inf
    return float(np.mean(losses[-max(1, steps // _LAST_SHARE) :]))


def _vertex(best: float, tried: dict[float, float]) -> float:
    low, mid, high = (tried.get(r, math.inf) for r in (best / FACTOR, best, best * FACTOR))
    curvature = low - 2 * mid + high
    if not math.isfinite(curvature) or curvature <= 0:
        return best
    return best * math.pow(FACTOR, np.clip((low - high) / (2 * curvature), -0.5, 0.5))
