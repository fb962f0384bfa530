"""L = E + Σ_k A_k X_k^(-α_k), laid over one table, with exact derivatives and a certified start.

For fixed exponents the loss is linear in (E, A_k): variable projection (Golub & Pereyra 1973).
So a whole grid of exponents costs one matrix product and a closed-form non-negative least
squares, and its local minima are the starts that a solver refines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .base import Constraints, Floats, Parameter, Surface
from .least_squares import NonNegative, non_negative

GRID_POINTS = 48
"""Exponents on each axis of the grid."""
_GRID = np.geomspace(0.005, 3.0, GRID_POINTS)
_MAX_STARTS = 8
_MOST_MINIMA = 256


@dataclass(frozen=True, slots=True)
class PowerSumSurface(Surface):
    """L = E + Σ_k A'_k exp(-α_k x_k), x_k = ln X_k - centre_k.

    Coordinates θ = (E, A'_1 … A'_K, α_1 … α_K) with A'_k = A_k exp(-α_k centre_k), the size of
    term k at the middle of the table: centring takes the near-perfect correlation of A and α
    out of the problem.

    Attributes
    ----------
    names : tuple of str
        Parameters, in the order of θ.
    x : ndarray, shape (K, n_runs)
        Centred logarithms of the inputs.
    centre : ndarray, shape (K,)
        0 for a term whose A is fixed, so that A' = A.
    constant : bool
        False where there is no E.
    minus_x : ndarray, shape (K, n_runs)
    powers : ndarray, shape (K, n_runs, 2)
        x and x².
    """

    names: tuple[str, ...]
    x: Floats
    centre: Floats
    constant: bool
    lower: Floats
    upper: Floats
    minus_x: Floats = field(init=False)
    powers: Floats = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "minus_x", -self.x)
        object.__setattr__(self, "powers", np.stack([self.x, self.x**2], axis=-1))

    @classmethod
    def over(
        cls,
        parameters: Sequence[Parameter],
        log_inputs: Floats,
        *,
        constant: bool,
        raw: Sequence[bool],
    ) -> Self:
        """Lay the law over `log_inputs`, shape (K, n_runs); `raw` marks terms not to centre."""
        middle = (log_inputs.min(axis=1) + log_inputs.max(axis=1)) / 2
        centre = np.where(raw, 0.0, middle)
        return cls(
            names=tuple(p.name for p in parameters),
            x=np.ascontiguousarray(log_inputs - centre[:, None]),
            centre=centre,
            constant=constant,
            lower=np.array([p.low for p in parameters]),
            upper=np.array([p.high for p in parameters]),
        )

    @property
    def linear(self) -> tuple[int, ...]:
        """E and every A'."""
        return tuple(range(int(self.constant) + len(self.x)))

    def take(self, rows: NDArray[Any]) -> Self:
        """Return the same law over some of the rows."""
        return replace(self, x=np.ascontiguousarray(self.x[:, rows]))

    def loss(self, theta: Floats) -> Floats:
        """Evaluate E + Σ_k A'_k e^(-α_k x_k)."""
        k, first = len(self.x), int(self.constant)
        out = np.zeros((len(theta), self.x.shape[1]))
        for i in range(k):
            term = theta[:, first + k + i, None] * self.minus_x[i]
            out += np.multiply(np.exp(term, out=term), theta[:, first + i, None], out=term)
        if self.constant:
            out += theta[:, :1]
        return out

    def derivatives(self, theta: Floats) -> tuple[Floats, Floats]:
        """∂L/∂E = 1, ∂L/∂A' = e^(-αx), ∂L/∂α = -A' x e^(-αx)."""
        first, last = int(self.constant), theta.shape[1]
        middle = first + len(self.x)
        jacobian = np.empty((len(theta), last, self.x.shape[1]))
        basis, bent = jacobian[:, first:middle], jacobian[:, middle:]
        np.exp(np.multiply(theta[:, middle:, None], self.minus_x, out=basis), out=basis)
        jacobian[:, :first] = 1.0
        loss = (theta[:, None, :middle] @ jacobian[:, :middle])[:, 0]
        np.multiply(basis, theta[:, first:middle, None], out=bent)
        bent *= self.minus_x
        return loss, jacobian

    def curvature(self, theta: Floats, jacobian: Floats, weight: Floats) -> Floats:
        """∂²L/∂A'∂α = -x e^(-αx), ∂²L/∂α² = A' x² e^(-αx); all others are zero."""
        k, first = len(self.x), int(self.constant)
        out = np.zeros((len(theta), theta.shape[1], theta.shape[1]))
        if len(theta) == 1:  # fewer calls, as plain numbers
            moments = ((jacobian[0, first : first + k] * weight[0])[:, None] @ self.powers).tolist()
            for i, ((cross, own),) in enumerate(moments):
                a, b = first + i, first + k + i
                out[0, a, b] = out[0, b, a] = -cross
                out[0, b, b] = theta[0, a] * own
            return out
        for i in range(k):
            a, b = first + i, first + k + i
            moments = (weight * jacobian[:, a]) @ self.powers[i]
            out[:, a, b] = out[:, b, a] = -moments[:, 0]
            out[:, b, b] = theta[:, a] * moments[:, 1]
        return out

    def starts(self, loss: Floats, weight: Floats, constraints: Constraints) -> Floats:
        """Return the best local minima of the exponent grid, each with its best coefficients."""
        k, first = len(self.x), int(self.constant)
        fixed = constraints.fixed
        exponents = [
            np.array([fixed[name]]) if name in fixed else _GRID for name in self.names[first + k :]
        ]
        held = [fixed.get(name) for name in self.names[: first + k]]
        tied = k == 2 and set(self.names[first + k :]) <= set(constraints.shared)
        if tied:
            exponents = [min(exponents, key=len)] * 2
        found = _project(self, exponents, held, tied, loss, weight)
        best = local_minima(found.cost)
        at = best * k if tied else best
        points = [axis[i] for axis, i in zip(exponents, at, strict=True)]
        theta = np.column_stack([found.coefficients(best), *points])
        return theta[_different(theta, first, k)]

    def to_params(self, theta: Floats) -> Floats:
        """Return A = A' exp(α centre)."""
        k, first = len(self.x), int(self.constant)
        out = np.array(theta, dtype=float)
        with np.errstate(over="ignore"):
            out[:, first : first + k] *= np.exp(theta[:, first + k :] * self.centre)
        return out

    def to_theta(self, params: Floats) -> Floats:
        """Return A' = A exp(-α centre)."""
        k, first = len(self.x), int(self.constant)
        out = np.array(params, dtype=float)
        out[:, first : first + k] *= np.exp(-params[:, first + k :] * self.centre)
        return out


def _project(
    surface: PowerSumSurface,
    exponents: Sequence[Floats],
    held: Sequence[float | None],
    tied: bool,
    loss: Floats,
    weight: Floats,
) -> NonNegative:
    """Eliminate the coefficients at every grid point: one axis an exponent, or one for all tied.

    Costs are weighted sums of squares, up to a constant.
    """
    basis = [np.multiply.outer(-e, x) for e, x in zip(exponents, surface.x, strict=True)]
    for b in basis:
        np.exp(b, out=b)
    weighted = [b * weight for b in basis]
    # An entry that belongs to one exponent alone lies along that exponent's axis.
    single = tied or len(basis) == 1
    expand: list[Any] = [slice(None)] if single else [np.s_[:, None], np.s_[None, :]]
    first = int(surface.constant)
    size = first + len(basis)
    gram: list[list[Any]] = [[None] * size for _ in range(size)]
    moment: list[Any] = [None] * size
    if surface.constant:
        gram[0][0], moment[0] = np.asarray(weight.sum()), np.asarray(weight @ loss)
    for i, (b, w) in enumerate(zip(basis, weighted, strict=True), first):
        at = expand[0] if single else expand[i - first]
        gram[i][i] = np.einsum("gi,gi->g", w, b)[at]
        moment[i] = (w @ loss)[at]
        if surface.constant:
            gram[0][i] = gram[i][0] = w.sum(axis=1)[at]
    if len(basis) == 2:
        i, j = first, first + 1
        cross = (weighted[0] * basis[1]).sum(axis=1) if tied else weighted[0] @ basis[1].T
        gram[i][j] = gram[j][i] = cross
    return non_negative(gram, moment, held)


def local_minima(cost: Floats) -> tuple[NDArray[np.intp], ...]:
    """Return indices of grid points no higher than any neighbour, the lowest first."""
    padded = np.full([size + 2 for size in cost.shape], np.inf)
    padded[(slice(1, -1),) * cost.ndim] = cost
    for axis in range(cost.ndim):
        # The least of three along each axis in turn is the least of all neighbours.
        ahead, behind, middle = (
            (slice(None),) * axis + (part,) for part in (np.s_[2:], np.s_[:-2], np.s_[1:-1])
        )
        padded = np.fmin(np.fmin(padded[ahead], padded[behind]), padded[middle])
    indices = np.nonzero((cost <= padded) & np.isfinite(cost))
    order = np.argsort(cost[indices], kind="stable")[:_MOST_MINIMA]
    return tuple(axis[order] for axis in indices)


def _different(theta: Floats, first: int, k: int) -> list[int]:
    """Return which starts differ by more than the exponent of a term that is zero."""
    bare = np.array(theta)
    bare[:, first + k :][theta[:, first : first + k] == 0] = 0.0
    kept: list[int] = []
    for i, row in enumerate(bare):
        far = np.abs(bare[kept] - row) > 1e-9 * np.abs(row)
        if far.any(axis=1).all():
            kept.append(i)
        if len(kept) == _MAX_STARTS:
            break
    return kept
