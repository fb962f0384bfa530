"""The compute-optimal frontier: closed forms where k in C = k·N·D is constant, else a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..laws import Law
from .compute import FlopModel

Floats = NDArray[np.float64]
_WIDEST = 40.0


# A resample whose law has no optimum gives inf or NaN, and disturbs no other.
@np.errstate(all="ignore")
def optimum(law: Law, params: Mapping[str, Any], compute: Any, flops: FlopModel) -> tuple[Any, Any]:
    """Return the compute-optimal N and D for C = k·N·D FLOP.

    For constant k: ln N* = [ln(αA / βB) + β ln(C/k)] / (α + β), from α A N^-α = β B D^-β.

    References
    ----------
    Hoffmann et al. 2022, eq. 4.
    """
    front = law.frontier(params)
    alpha, beta = np.asarray(front.alpha, float), np.asarray(front.beta, float)
    balance = np.log(alpha / beta) + front.log_A - front.log_B
    if flops.is_constant:
        log_c = np.log(compute / flops.constant)
        log_n = (balance + beta * log_c) / (alpha + beta)
        return np.exp(log_n), np.exp(log_c - log_n)
    guess = (balance + beta * np.log(compute / 6.0)) / (alpha + beta)

    def cost(log_n: Floats) -> Floats:
        n = np.exp(log_n)
        log_d = np.log(flops.tokens(column(compute), n))
        a, b = column(alpha), column(beta)
        terms = column(front.log_A) - a * log_n, column(front.log_B) - b * log_d
        return np.asarray(np.logaddexp(*terms), float)

    shape = np.shape(guess)
    middle = np.atleast_1d(guess)
    log_n = zoom(cost, middle - 6.0, middle + 6.0).reshape(shape)
    return np.exp(log_n), flops.tokens(compute, np.exp(log_n))


def reach(law: Law, params: Mapping[str, Any], loss: Any, flops: FlopModel) -> tuple[Any, Any]:
    """Return the N and D that reach `loss` with the least compute; NaN where none does.

    For constant k: A N^-α = x β/(α+β) and B D^-β = x α/(α+β), where x = L - E.
    """
    front = law.frontier(params)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.log(law.excess(params, np.asarray(loss, float)))
        total = np.log(front.alpha + front.beta)
        log_n = (front.log_A - excess - np.log(front.beta) + total) / front.alpha
        log_d = (front.log_B - excess - np.log(front.alpha) + total) / front.beta
    n, d = np.exp(log_n), np.exp(log_d)
    if flops.is_constant:
        return n, d

    def cost(log_n: Floats) -> Floats:
        log_d = log_tokens_for(front, column(excess), log_n)
        with np.errstate(invalid="ignore", over="ignore"):
            per = np.log(flops.per_param_token(np.exp(log_n)))
            return np.asarray(per + log_n + log_d, float)

    shape, middle = np.shape(log_n), np.atleast_1d(log_n)
    best = zoom(cost, middle - 6.0, middle + 6.0)
    tokens = np.exp(log_tokens_for(front, column(excess), best[:, None])[:, 0])
    return np.exp(best).reshape(shape), tokens.reshape(shape)


def log_tokens_for(front: Any, log_excess: Any, log_n: Any) -> Any:
    """Return ln D on an iso-loss curve: D = [B / (x - A N^-α)]^(1/β); inf where N is too small."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = column(front.log_A) - column(front.alpha) * log_n - log_excess
        rest = np.log(-np.expm1(np.where(share < 0, share, 0.0))) + log_excess
        return (column(front.log_B) - rest) / column(front.beta)


def zoom(cost: Callable[[Floats], Floats], low: Floats, high: Floats) -> Floats:
    """Minimise a unimodal function of one variable in every row at once, by grids in grids.

    Parameters
    ----------
    cost : callable
        Takes points of shape (n_rows, m), returns as many values; inf or NaN where infeasible.
    low, high : ndarray, shape (n_rows,)
    """
    low, high = np.array(low, float), np.array(high, float)
    fraction = np.linspace(0.0, 1.0, 33)
    rows = np.arange(len(low))
    for _ in range(11):
        points = low[:, None] + (high - low)[:, None] * fraction
        value = cost(points)
        value = np.where(np.isnan(value), np.inf, value)
        best = value.argmin(axis=1)
        low = points[rows, np.maximum(best - 1, 0)]
        high = points[rows, np.minimum(best + 1, len(fraction) - 1)]
    return 0.5 * (low + high)


def column(value: Any) -> Any:
    """Let a value per row broadcast against points in a row."""
    value = np.asarray(value, dtype=float)
    return value[:, None] if value.ndim == 1 else value


def near_optimal(
    law: Law, params: Mapping[str, float], compute: float, within: float, flops: FlopModel
) -> tuple[float, float]:
    """Return the smallest and largest N whose loss at the same C is within a share of the best."""
    n_star, d_star = optimum(law, params, compute, flops)
    target = float(law.predict(params, n_star, d_star)) * (1.0 + within)
    middle = float(np.log(n_star))

    def above(log_n: float) -> bool:
        n = float(np.exp(log_n))
        return bool(law.predict(params, n, flops.tokens(compute, n)) > target)

    edges = []
    for direction in (-1.0, 1.0):
        inner, outer = 0.0, 1.0
        while not above(middle + direction * outer) and outer < _WIDEST:
            inner, outer = outer, 2.0 * outer
        for _ in range(60):
            half = 0.5 * (inner + outer)
            inner, outer = (inner, half) if above(middle + direction * half) else (half, outer)
        edges.append(float(np.exp(middle + direction * inner)))
    return edges[0], edges[1]
