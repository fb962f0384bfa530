"""One IsoFLOP slice: the parabola through it, its minimum, and whether there is one.

At a fixed budget the loss against ln N is a valley. Approach 2 (Hoffmann et al. 2022, §3.2) puts
a parabola through it and takes the vertex. The vertex is an optimum only if the runs stand on
both sides of it; otherwise it is an extrapolation, and says so here by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import counted
from .notes import FitWarning
from .slices import Array, Slice
from .trend import interval

MinimumStatus = Literal["optimum", "at_smallest", "at_largest", "no_minimum", "too_few_sizes"]
"""``optimum``: bracketed by runs on both sides. ``at_smallest``, ``at_largest``: the best size is
the grid's first or last. ``no_minimum``: the parabola opens downward. ``too_few_sizes``: fewer
than three model sizes."""

MIN_WINDOW_SIZES = 5
"""Sizes the window keeps, where there are so many, however narrow it is: a parabola through three
points has no residual left to judge it by."""
_MIN_BRACKETED = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoFlopMinimum:
    """The minimum of one IsoFLOP slice, or the reason why there is none.

    Attributes
    ----------
    budget : float, FLOP
        The slice's label, as planned.
    status : str
        See :data:`MinimumStatus`; only an ``optimum`` enters the power laws.
    n_params : float, parameters
        N*, the vertex; NaN unless an optimum.
    n_tokens : float, tokens
        D* = compute / (FLOP per token at N*), from the slice's own runs.
    compute : float, FLOP
        What runs of size N* spent.
    loss : float, nats per token
        The parabola's value at N*.
    intervals : mapping of str to (float, float)
        For ``n_params``, ``n_tokens``, ``loss``; an end is infinite where more than its share
        of the resamples has no minimum on that side of the grid.
    bracketed : float
        Share of the resamples in which the minimum stays inside the grid.
    coefficients : (float, float, float)
        c0, c1, c2 of loss = c0 + c1·x + c2·x² with x = ln(N / center).
    center : float, parameters
        Origin of the parabola's x.
    window : (float, float), parameters
        Smallest and largest N the parabola was fitted to.
    n_runs, n_sizes : int
        Runs and distinct sizes in the slice, before windowing.
    note : FitWarning or None
        Why there is no optimum, or why it is uncertain, and what to do.
    """

    budget: float
    status: MinimumStatus
    n_params: float = np.nan
    n_tokens: float = np.nan
    compute: float = np.nan
    loss: float = np.nan
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    bracketed: float = np.nan
    coefficients: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    center: float = np.nan
    window: tuple[float, float] = (np.nan, np.nan)
    n_runs: int
    n_sizes: int
    note: FitWarning | None = None

    @property
    def n_params_text(self) -> str:
        """N* with its interval, open ends in words; empty without an optimum."""
        if self.status != "optimum":
            return ""
        lo, hi = self.intervals.get("n_params", (np.nan, np.nan))
        if np.isnan(lo):
            return f"{self.n_params:.3g}"
        if lo == 0 and np.isinf(hi):
            span = "no bound on either side"
        elif lo == 0:
            span = f"no lower bound, up to {hi:.3g}"
        elif np.isinf(hi):
            span = f"from {lo:.3g}, no upper bound"
        else:
            span = f"{lo:.3g} to {hi:.3g}"
        return f"{self.n_params:.3g} ({span})"

    def parabola(self, n_params: Array) -> Array:
        """Return c0 + c1·x + c2·x², x = ln(N / center), nats per token, shape of `n_params`."""
        x = np.log(np.asarray(n_params, float) / self.center)
        c0, c1, c2 = self.coefficients
        return np.asarray(c0 + x * (c1 + x * c2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parabola:
    """A fitted slice with what a resample needs: loss → coefficients is linear.

    ``keep`` picks the window's rows out of the slice; ``operator``, shape (3, n_kept), maps their
    losses to coefficients in x = (ln N - center) / scale; ``leverage`` is the hat matrix's
    diagonal.
    """

    slice: Slice
    status: MinimumStatus
    keep: NDArray[np.intp]
    center: float
    scale: float
    operator: Array
    leverage: Array

    @property
    def loss(self) -> Array:
        """Loss of the window's runs, nats per token."""
        return self.slice.loss[self.keep]

    @property
    def design(self) -> Array:
        """The columns 1, x, x², shape (n_kept, 3)."""
        x = (self.slice.log_n[self.keep] - self.center) / self.scale
        return np.stack([np.ones_like(x), x, x * x], axis=1)

    @property
    def fitted(self) -> Array:
        """The parabola at the window's runs, nats per token."""
        return np.asarray(self.design @ (self.operator @ self.loss))

    def is_bracketed(self, log_n: Array) -> NDArray[np.bool_]:
        """Return where `log_n` lies strictly between the slice's smallest and largest size."""
        return np.asarray((log_n > self.slice.log_n.min()) & (log_n < self.slice.log_n.max()))

    def vertices(self, losses: Array) -> tuple[Array, Array]:
        """Return (ln N*, loss) for rows of `losses`, shape (n_resamples, n_kept).

        Without a minimum ln N* is -inf or +inf, towards the lower side of the slice.
        """
        c0, c1, c2 = self.operator @ losses.T
        with np.errstate(divide="ignore", invalid="ignore"):
            x = np.where(c2 > 0.0, -c1 / (2.0 * c2), -np.inf * np.sign(c1))
            value = np.where(c2 > 0.0, c0 - c1 * c1 / (4.0 * c2), np.nan)
        return np.nan_to_num(self.center + self.scale * x, nan=np.inf, posinf=np.inf), value


def fit_parabola(part: Slice, window: float | None) -> Parabola | None:
    """Fit loss = c0 + c1·x + c2·x² to a slice, in a window around its minimum.

    The window first lies around the size of lowest mean loss, then once more around the vertex
    found, and always keeps at least :data:`MIN_WINDOW_SIZES` sizes where there are so many.

    Parameters
    ----------
    part : Slice
    window : float or None
        Keep sizes within this factor of the minimum; None keeps all.

    Returns
    -------
    Parabola or None
        None where the slice has fewer than three sizes.
    """
    sizes, inverse = np.unique(part.log_n, return_inverse=True)
    if len(sizes) < 3:
        return None
    mean_loss = np.bincount(inverse, part.loss) / np.bincount(inverse)
    lowest = int(np.argmin(mean_loss))
    fit = _fit_around(part, sizes, sizes[lowest], window)
    vertex = fit.vertices(fit.loss[None])[0][0]
    if window is not None and sizes[0] < vertex < sizes[-1]:
        fit = _fit_around(part, sizes, vertex, window)
        vertex = fit.vertices(fit.loss[None])[0][0]
    curvature = (fit.operator @ fit.loss)[2]
    status: MinimumStatus
    if lowest == 0 or (curvature > 0 and vertex <= sizes[0]):
        status = "at_smallest"
    elif lowest == len(sizes) - 1 or (curvature > 0 and vertex >= sizes[-1]):
        status = "at_largest"
    else:
        status = "optimum" if curvature > 0 else "no_minimum"
    return Parabola(
        slice=part,
        status=status,
        keep=fit.keep,
        center=fit.center,
        scale=fit.scale,
        operator=fit.operator,
        leverage=fit.leverage,
    )


def _fit_around(part: Slice, sizes: Array, center: float, window: float | None) -> Parabola:
    keep = np.arange(len(part.log_n))
    if window is not None:
        distance = np.sort(np.abs(sizes - center))
        reach = max(np.log(window), distance[min(MIN_WINDOW_SIZES, len(sizes)) - 1])
        keep = np.flatnonzero(np.abs(part.log_n - center) <= reach * (1 + 1e-12))
    log_n = part.log_n[keep]
    scale = float(np.ptp(log_n)) / 2.0
    x = (log_n - center) / scale
    design = np.stack([np.ones_like(x), x, x * x], axis=1)
    operator: Array = np.linalg.pinv(design).astype(float)
    return Parabola(
        slice=part,
        status="optimum",
        keep=keep,
        center=float(center),
        scale=scale,
        operator=operator,
        leverage=np.einsum("ij,ji->i", design, operator),
    )


def describe_slice(
    part: Slice, fit: Parabola | None, vertices: tuple[Array, Array], level: float
) -> IsoFlopMinimum:
    """Say what one slice has shown: its optimum with intervals, or why there is none.

    Parameters
    ----------
    part : Slice
    fit : Parabola or None
    vertices : (ndarray, ndarray), shape (1 + n_resamples,)
        ln N* and loss of the data (row 0) and of each resample; not read where `fit` is None.
    level : float
    """
    sizes = np.unique(part.log_n)
    if fit is None:
        return IsoFlopMinimum(
            budget=part.budget,
            status="too_few_sizes",
            n_runs=len(part.loss),
            n_sizes=len(sizes),
            note=_why(part, "too_few_sizes", sizes),
        )
    log_n, loss = vertices
    c0, c1, c2 = (fit.operator @ fit.loss) / fit.scale ** np.arange(3)
    kept = part.log_n[fit.keep]
    shared: dict[str, Any] = {
        "budget": part.budget,
        "status": fit.status,
        "coefficients": (float(c0), float(c1), float(c2)),
        "center": float(np.exp(fit.center)),
        "window": (float(np.exp(kept.min())), float(np.exp(kept.max()))),
        "n_runs": len(part.loss),
        "n_sizes": len(sizes),
        "note": _why(part, fit.status, sizes),
    }
    if fit.status != "optimum":
        return IsoFlopMinimum(**shared)
    inside = fit.is_bracketed(log_n)
    open_ended = np.where(inside, log_n, np.copysign(np.inf, log_n - sizes.mean()))
    n_tokens = np.exp(part.along(part.log_c - part.log_flops_per_token, log_n))
    tokens = np.where(inside, n_tokens, np.where(open_ended > 0, 0.0, np.inf))
    samples = {"n_params": np.exp(open_ended), "n_tokens": tokens, "loss": loss}
    bounds = {
        name: interval(values[1:][inside[1:]] if name == "loss" else values[1:], level)
        for name, values in samples.items()
    }
    bracketed = float(inside[1:].mean()) if len(inside) > 1 else np.nan
    if bracketed < _MIN_BRACKETED:
        shared["note"] = FitWarning(
            code="minimum_uncertain",
            message=f"At C = {part.budget:.3g} FLOP the minimum leaves the grid of sizes in "
            f"{1 - bracketed:.0%} of the resamples: noise hides where it is.",
            remedy="Add sizes on both sides, or seeds.",
            values={"budget": part.budget, "share": 1 - bracketed},
        )
    return IsoFlopMinimum(
        **shared,
        n_params=float(np.exp(log_n[0])),
        n_tokens=float(n_tokens[0]),
        compute=float(np.exp(part.along(part.log_c, log_n[:1])[0])),
        loss=float(loss[0]),
        intervals={name: (float(lo), float(hi)) for name, (lo, hi) in bounds.items()},
        bracketed=bracketed,
    )


_SIDE = {"at_smallest": {"side": -1.0}, "at_largest": {"side": 1.0}}


def _why(part: Slice, status: MinimumStatus, log_sizes: Array) -> FitWarning | None:
    if status == "optimum":
        return None
    smallest, largest = np.exp(log_sizes[[0, -1]])
    code, fact, remedy = {
        "at_smallest": (
            "minimum_not_bracketed",
            f"the best size is the smallest or near it (N = {smallest:.3g}): the minimum is not "
            "bracketed",
            f"Add runs with N < {smallest:.3g}; until then this budget is left out.",
        ),
        "at_largest": (
            "minimum_not_bracketed",
            f"the best size is the largest or near it (N = {largest:.3g}): the minimum is not "
            "bracketed",
            f"Add runs with N > {largest:.3g}; until then this budget is left out.",
        ),
        "no_minimum": (
            "no_minimum",
            "the parabola opens downward: the losses show no minimum",
            f"Add seeds or sizes from {smallest:.3g} to {largest:.3g}, or look for a run that "
            "went wrong; until then this budget is left out.",
        ),
        "too_few_sizes": (
            "too_few_sizes",
            f"there {'is' if len(log_sizes) == 1 else 'are'} "
            f"{counted(len(log_sizes), 'model size')}, and a parabola needs three",
            "Add runs of other sizes; until then this budget is left out.",
        ),
    }[status]
    return FitWarning(
        code=code,
        message=f"At C = {part.budget:.3g} FLOP {fact}.",
        remedy=remedy,
        values={
            "budget": part.budget,
            "smallest": float(smallest),
            "largest": float(largest),
            **_SIDE.get(status, {}),
        },
    )
