"""Non-negative least squares of a few coefficients for many right-hand sides at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from .base import Floats


def non_negative(
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
