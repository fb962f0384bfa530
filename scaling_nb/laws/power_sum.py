"""L = E + Σ_k A_k X_k^(-α_k), laid over one table, with exact derivatives and a certified start.

For fixed exponents the loss is linear in (E, A_k): variable projection (Golub & Pereyra 1973).
So a whole grid of exponents costs one matrix product and a closed-form non-negative least
squares, and its local minima are the starts that a solver refines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .base import Constraints, Floats, Parameter, Surface

GRID_POINTS = 48
"""Exponents on each axis of the grid."""
_GRID = np.geomspace(0.01, 2.5, GRID_POINTS)
_MAX_STARTS = 8


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
    """

    names: tuple[str, ...]
    x: Floats
    centre: Floats
    constant: bool
    lower: Floats
    upper: Floats

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

    def take(self, rows: NDArray[Any]) -> Self:
        """Return the same law over some of the rows."""
        return replace(self, x=np.ascontiguousarray(self.x[:, rows]))

    def loss(self, theta: Floats) -> Floats:
        """Evaluate E + Σ_k A'_k e^(-α_k x_k)."""
        k, first = len(self.x), int(self.constant)
        out = np.zeros((len(theta), self.x.shape[1]))
        for i in range(k):
            term = theta[:, first + k + i, None] * -self.x[i]
            out += np.multiply(np.exp(term, out=term), theta[:, first + i, None], out=term)
        if self.constant:
            out += theta[:, :1]
        return out

    def derivatives(self, theta: Floats) -> tuple[Floats, Floats]:
        """∂L/∂E = 1, ∂L/∂A' = e^(-αx), ∂L/∂α = -A' x e^(-αx)."""
        k, first = len(self.x), int(self.constant)
        jacobian = np.empty((len(theta), theta.shape[1], self.x.shape[1]))
        loss = np.zeros((len(theta), self.x.shape[1]))
        if self.constant:
            jacobian[:, 0] = 1.0
            loss += theta[:, :1]
        for i in range(k):
            scale, exponent = theta[:, first + i, None], theta[:, first + k + i, None]
            basis = jacobian[:, first + i]
            np.exp(np.multiply(exponent, -self.x[i], out=basis), out=basis)
            term = scale * basis
            loss += term
            np.multiply(term, -self.x[i], out=jacobian[:, first + k + i])
        return loss, jacobian

    def curvature(self, theta: Floats, jacobian: Floats, weight: Floats) -> Floats:
        """∂²L/∂A'∂α = -x e^(-αx), ∂²L/∂α² = A' x² e^(-αx); all others are zero."""
        k, first = len(self.x), int(self.constant)
        out = np.zeros((len(theta), theta.shape[1], theta.shape[1]))
        for i in range(k):
            a, b = first + i, first + k + i
            weighted = weight * jacobian[:, a]
            out[:, a, b] = out[:, b, a] = -(weighted @ self.x[i])
            out[:, b, b] = theta[:, a] * (weighted @ self.x[i] ** 2)
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
        points, cost, coefficients = _project(self, exponents, held, tied, loss, weight)
        best = _local_minima(cost)
        return np.column_stack([coefficients[best], points[best]])

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
) -> tuple[Floats, Floats, Floats]:
    """Eliminate the coefficients at every grid point.

    Returns
    -------
    points : ndarray, shape (*grid, K)
    cost : ndarray, shape (*grid)
        Weighted sum of squares, up to a constant.
    coefficients : ndarray, shape (*grid, n_coefficients)
    """
    basis = [np.exp(-np.outer(e, x)) for e, x in zip(exponents, surface.x, strict=True)]
    weighted = [b * weight for b in basis]
    if tied:
        same = exponents[0] if len(exponents[0]) == 1 else exponents[1]
        exponents = [same, same]
        basis = [np.exp(-np.outer(same, x)) for x in surface.x]
        weighted = [b * weight for b in basis]
        cross = np.einsum("gi,gi->g", weighted[0], basis[1])
        shape: tuple[int, ...] = (len(same),)
        expand: list[tuple[slice | None, ...]] = [(slice(None),), (slice(None),)]
        points = np.stack([same, same], axis=-1)
    elif len(basis) == 2:
        cross = weighted[0] @ basis[1].T
        shape = cross.shape
        expand = [(slice(None), None), (None, slice(None))]
        points = np.stack(np.broadcast_arrays(*np.ix_(*exponents)), axis=-1)
    else:
        cross = np.zeros(0)
        shape = (len(exponents[0]),)
        expand = [(slice(None),)]
        points = exponents[0][:, None]
    first = int(surface.constant)
    size = first + len(basis)
    gram = np.empty((size, size, *shape))
    moment = np.empty((size, *shape))
    if surface.constant:
        gram[0, 0] = weight.sum()
        moment[0] = weight @ loss
    for i, (b, w) in enumerate(zip(basis, weighted, strict=True)):
        at = expand[i]
        gram[first + i, first + i] = np.einsum("gi,gi->g", w, b)[at]
        moment[first + i] = (w @ loss)[at]
        if surface.constant:
            gram[0, first + i] = gram[first + i, 0] = w.sum(axis=1)[at]
    if len(basis) == 2:
        gram[first, first + 1] = gram[first + 1, first] = cross
    cost, coefficients = _non_negative(gram, moment, held)
    return points, cost, np.moveaxis(coefficients, 0, -1)


def _non_negative(
    gram: Floats, moment: Floats, held: Sequence[float | None]
) -> tuple[Floats, Floats]:
    """Minimise cᵀGc - 2mᵀc over c ≥ 0 at every grid point, by cases of which c are positive.

    Parameters
    ----------
    gram : ndarray, shape (p, p, *grid)
    moment : ndarray, shape (p, *grid)
    held : sequence of float or None, length p
        Coefficients held at a value.
    """
    reduced = moment
    base: Floats = np.zeros(moment.shape[1:])
    free = [i for i, value in enumerate(held) if value is None]
    if len(free) < len(held):
        known = np.zeros_like(moment)
        for i, value in enumerate(held):
            known[i] = 0.0 if value is None else value
        reduced = moment - np.einsum("ij...,j...->i...", gram, known)
        base = np.einsum("i...,i...->...", known, -moment - reduced)
    shape = base.shape
    gram = gram.reshape(len(held), len(held), -1)
    reduced, base = reduced.reshape(len(held), -1), base.ravel()
    resting = np.array([value or 0.0 for value in held])[:, None]
    cost, best = base.copy(), np.tile(resting, (1, len(base)))
    _try_cases(gram, reduced, base, [tuple(free)] if free else [], cost, best)
    # Where all are positive nothing is better; the other cases are for the rest.
    rest = np.flatnonzero(cost == base)
    if len(rest) and len(free) > 1:
        cases = [c for size in range(len(free) - 1, 0, -1) for c in combinations(free, size)]
        rest_cost, rest_best = cost[rest], best[:, rest]
        _try_cases(gram[:, :, rest], reduced[:, rest], base[rest], cases, rest_cost, rest_best)
        cost[rest], best[:, rest] = rest_cost, rest_best
    return cost.reshape(shape), best.reshape(len(held), *shape)


def _try_cases(
    gram: Floats,
    moment: Floats,
    base: Floats,
    cases: Sequence[tuple[int, ...]],
    cost: Floats,
    best: Floats,
) -> None:
    """Solve for each case's coefficients, and write what is feasible and better into the last two.

    All arrays are flat over the grid; coefficients outside a case are what they start at.
    """
    resting = best.copy()
    for chosen in cases:
        solution = _cramer(gram, moment, chosen)
        with np.errstate(invalid="ignore"):  # a singular case has no finite solution
            here = base - sum(moment[i] * c for i, c in zip(chosen, solution, strict=True))
        ok = here < cost
        for c in solution:
            ok &= c >= 0
        np.copyto(cost, here, where=ok)
        for i in range(len(best)):
            np.copyto(best[i], solution[chosen.index(i)] if i in chosen else resting[i], where=ok)


def _cramer(gram: Floats, moment: Floats, chosen: Sequence[int]) -> list[Floats]:
    """Solve the normal equations of one to three coefficients in closed form."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if len(chosen) == 1:
            (i,) = chosen
            return [moment[i] / gram[i, i]]
        if len(chosen) == 2:
            i, j = chosen
            det = gram[i, i] * gram[j, j] - gram[i, j] ** 2
            return [
                (moment[i] * gram[j, j] - moment[j] * gram[i, j]) / det,
                (moment[j] * gram[i, i] - moment[i] * gram[i, j]) / det,
            ]
        i, j, k = chosen
        cof_i = gram[j, j] * gram[k, k] - gram[j, k] ** 2
        cof_j = gram[i, k] * gram[j, k] - gram[i, j] * gram[k, k]
        cof_k = gram[i, j] * gram[j, k] - gram[i, k] * gram[j, j]
        det = gram[i, i] * cof_i + gram[i, j] * cof_j + gram[i, k] * cof_k
        cof_jj = gram[i, i] * gram[k, k] - gram[i, k] ** 2
        cof_jk = gram[i, j] * gram[i, k] - gram[i, i] * gram[j, k]
        cof_kk = gram[i, i] * gram[j, j] - gram[i, j] ** 2
        a, b, c = moment[i], moment[j], moment[k]
        return [
            (cof_i * a + cof_j * b + cof_k * c) / det,
            (cof_j * a + cof_jj * b + cof_jk * c) / det,
            (cof_k * a + cof_jk * b + cof_kk * c) / det,
        ]


def _local_minima(cost: Floats) -> tuple[NDArray[np.intp], ...]:
    """Return indices of grid points no higher than any neighbour, the lowest first."""
    padded = np.pad(cost, 1, constant_values=np.inf)
    lowest = np.ones(cost.shape, dtype=bool)
    middle = tuple(slice(1, -1) for _ in cost.shape)
    for offset in np.ndindex(*(3,) * cost.ndim):
        if all(o == 1 for o in offset):
            continue
        neighbour = tuple(slice(o, o + size) for o, size in zip(offset, cost.shape, strict=True))
        lowest &= padded[middle] <= padded[neighbour]
    indices = np.nonzero(lowest & np.isfinite(cost))
    order = np.argsort(cost[indices], kind="stable")[:_MAX_STARTS]
    return tuple(axis[order] for axis in indices)
