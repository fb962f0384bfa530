"""Power laws through the optima of several budgets, with all resamples fitted at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

MIN_OPTIMA_FOR_FLOOR = 4
"""An irreducible loss is fitted to no fewer optima than this: it is the third parameter."""
_GAMMAS = np.geomspace(0.01, 1.5, 17)
_ZOOMS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """y(C) = floor + scale · (C / center)^exponent, with the same for every resample.

    Attributes
    ----------
    exponent, scale, floor : float
        ``scale`` and ``floor`` in the unit of y.
    center : float, FLOP
        Geometric mean of the budgets.
    samples : ndarray, shape (n_resamples, 3)
        floor, ln scale, exponent of each resample that has a trend.
    level : float
        Two-sided coverage of the intervals.
    """

    exponent: float
    scale: float
    floor: float = 0.0
    center: float
    samples: Array = field(repr=False)
    level: float = 0.9

    @property
    def coefficient(self) -> float:
        """K of y = floor + k·C^exponent, C in FLOP."""
        return float(self.scale * self.center**-self.exponent)

    @property
    def exponent_interval(self) -> tuple[float, float]:
        """The exponent's interval at ``level``; NaN without resamples."""
        lo, hi = interval(self.samples[:, 2], self.level)
        return float(lo), float(hi)

    def at(self, compute: ArrayLike) -> Array:
        """Return y at `compute`, FLOP, in the shape of `compute`."""
        x = np.asarray(compute, float) / self.center
        return np.asarray(self.floor + self.scale * x**self.exponent)

    def resampled(self, compute: ArrayLike) -> Array:
        """Return y of every resample, shape (n_resamples, n_compute)."""
        x = np.log(np.atleast_1d(np.asarray(compute, float)) / self.center)
        floor, log_scale, exponent = self.samples.T[:, :, None]
        return np.asarray(floor + np.exp(log_scale + exponent * x))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trends:
    """The power laws through the optima: N*(C), D*(C) and L*(C).

    ``usable`` is the share of the resamples in which two budgets or more keep an optimum.
    """

    n_params: Trend
    n_tokens: Trend
    loss: Trend
    usable: float


def interval(samples: Array, level: float) -> tuple[Array, Array]:
    """Return the central interval of `samples` along axis 0; infinite samples are allowed."""
    tail = (1.0 - level) / 2.0
    if len(samples) == 0:
        missing = np.full(samples.shape[1:], np.nan)
        return missing, missing
    lo, hi = np.quantile(samples, [tail, 1.0 - tail], axis=0, method="nearest")
    return lo, hi


def fit_trend(log_c: Array, log_y: Array, valid: NDArray[np.bool_], level: float) -> Trend:
    """Fit ln y = ln scale + p·(ln C - ln center) by least squares, row by row.

    Parameters
    ----------
    log_c, log_y : ndarray, shape (1 + n_resamples, n_budgets)
        Row 0 is the data itself; the other rows are resamples.
    valid : ndarray of bool, same shape
        Where there is an optimum; a row with fewer than two is dropped.
    level : float
    """
    center = float(log_c[0].mean())
    weight = valid.astype(float)
    x = np.where(valid, log_c - center, 0.0)
    y = np.where(valid, log_y, 0.0)
    count = np.maximum(weight.sum(1), 1.0)
    mean_x, mean_y = x.sum(1) / count, y.sum(1) / count
    spread = (weight * (x - mean_x[:, None]) ** 2).sum(1)
    covariance = (weight * (x - mean_x[:, None]) * (y - mean_y[:, None])).sum(1)
    usable = (count >= 2) & (spread > 0)
    slope = np.divide(covariance, spread, out=np.zeros_like(spread), where=usable)
    rows = np.stack([np.zeros_like(slope), mean_y - slope * mean_x, slope], axis=1)
    return Trend(
        exponent=float(slope[0]),
        scale=float(np.exp(rows[0, 1])),
        center=float(np.exp(center)),
        samples=rows[1:][usable[1:]],
        level=level,
    )


def fit_loss_trend(log_c: Array, loss: Array, valid: NDArray[np.bool_], level: float) -> Trend:
    """Fit loss = floor + scale·(C / center)^-γ, floor ≥ 0, row by row.

    γ is searched on a grid, ever finer; floor and scale are then linear. With
    fewer than :data:`MIN_OPTIMA_FOR_FLOOR` budgets the floor is zero and the loss a plain power
    law, which extrapolates to losses that are too low.

    Parameters
    ----------
    log_c, loss, valid : ndarray, shape (1 + n_resamples, n_budgets)
        As in :func:`fit_trend`.
    level : float
    """
    valid = valid & (loss > 0)
    y = np.where(valid, loss, 1.0)
    if log_c.shape[1] < MIN_OPTIMA_FOR_FLOOR:
        return fit_trend(log_c, np.log(y), valid, level)
    x = log_c[0] - log_c[0].mean()
    weight = valid.astype(float)
    rates = np.broadcast_to(_GAMMAS, (len(y), len(_GAMMAS)))
    for _ in range(_ZOOMS):
        error, _, _ = _linear_part(rates, x, weight, y)
        best = np.argmin(error, axis=1)[:, None]
        low, high = (
            np.take_along_axis(rates, np.clip(best + k, 0, rates.shape[1] - 1), axis=1)
            for k in (-1, 1)
        )
        rates = low * (high / low) ** np.linspace(0.0, 1.0, 9)
    gamma = np.take_along_axis(rates, rates.shape[1] // 2 * np.ones_like(best), axis=1)
    _, floor, scale = _linear_part(gamma, x, weight, y)
    usable = (valid.sum(axis=1) >= MIN_OPTIMA_FOR_FLOOR - 1) & (scale[:, 0] > 0)
    log_scale = np.log(np.where(usable, scale[:, 0], 1.0))
    rows = np.stack([floor[:, 0], log_scale, -gamma[:, 0]], axis=1)
    return Trend(
        exponent=float(-gamma[0, 0]),
        scale=float(scale[0, 0]),
        floor=float(floor[0, 0]),
        center=float(np.exp(log_c[0].mean())),
        samples=rows[1:][usable[1:]],
        level=level,
    )


def _linear_part(rates: Array, x: Array, weight: Array, y: Array) -> tuple[Array, Array, Array]:
    """Return squared error, floor ≥ 0 and scale of y = floor + scale·e^(-γx), for each γ.

    Shapes: rates (n_rows, n_rates), x (n_x,), weight and y (n_rows, n_x); results as rates.
    """
    z = np.exp(-rates[:, :, None] * x)
    w, y = weight[:, None, :], y[:, None, :]
    n = np.maximum(w.sum(axis=2), 1.0)
    mean_z, mean_y = (w * z).sum(axis=2) / n, (w * y).sum(axis=2) / n
    dz, dy = z - mean_z[:, :, None], y - mean_y[:, :, None]
    spread = np.maximum((w * dz * dz).sum(axis=2), 1e-300)
    scale = (w * dz * dy).sum(axis=2) / spread
    floor = mean_y - scale * mean_z
    bare = (w * z * y).sum(axis=2) / np.maximum((w * z * z).sum(axis=2), 1e-300)
    scale = np.where(floor < 0, bare, scale)
    floor = np.maximum(floor, 0.0)
    residual = y - floor[:, :, None] - scale[:, :, None] * z
    return (w * residual * residual).sum(axis=2), floor, scale
