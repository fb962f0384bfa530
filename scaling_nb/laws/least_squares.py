"""Non-negative least squares of a few coefficients for many right-hand sides at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from .base import Floats


@dataclass(frozen=True, slots=True)
class NonNegative:
    """The least cᵀGc - 2mᵀc over c ≥ 0 at every point of a grid.

    Attributes
    ----------
    cost : ndarray, shape (*grid)
    gains : ndarray, shape (n_cases, *grid)
        By how much each case lowers the cost of the first; 0 where it is not feasible.
    chosen : sequence of tuple of int
        Which coefficients are positive in each case: none in the first.
    solutions : sequence of list of ndarray
        Coefficients of each case, each of a shape that broadcasts to the grid.
    resting : ndarray, shape (p,)
        What a coefficient is in cases it is not of.
    """

    cost: Floats
    gains: Floats
    chosen: Sequence[tuple[int, ...]]
    solutions: Sequence[Sequence[Floats]]
    resting: Floats

    def coefficients(self, index: Any = ()) -> Floats:
        """Return the coefficients at some points of the grid, shape (*points, p)."""
        gains = self.gains[(slice(None), *index)]
        case = gains.argmax(axis=0)
        out = np.empty((*case.shape, len(self.resting)))
        out[...] = self.resting
        for number in set(case.ravel().tolist()):
            here = case == number
            for i, c in zip(self.chosen[number], self.solutions[number], strict=True):
                whole = c if c.shape == self.cost.shape else np.broadcast_to(c, self.cost.shape)
                out[here, i] = whole[index][here]
        return out


def non_negative(gram: Any, moment: Any, held: Sequence[float | None]) -> NonNegative:
    """Minimise cᵀGc - 2mᵀc over c ≥ 0 at every grid point, by cases of which c are positive.

    Parameters
    ----------
    gram : (p, p) of ndarray
        Each entry of a shape that broadcasts to the grid: what depends on one axis alone costs
        as little as that axis.
    moment : (p,) of ndarray
    held : sequence of float or None, length p
        Coefficients held at a value.
    """
    free = [i for i, value in enumerate(held) if value is None]
    known = [(i, value) for i, value in enumerate(held) if value is not None]
    reduced = [m - sum(gram[i][j] * value for j, value in known) for i, m in enumerate(moment)]
    base = sum((value * (-moment[i] - reduced[i]) for i, value in known), np.zeros(()))
    shape = np.broadcast_shapes(*(g.shape for row in gram for g in row))
    sizes = range(len(free), 0, -1)
    chosen: list[tuple[int, ...]] = [(), *(c for k in sizes for c in combinations(free, k))]
    gains = np.zeros((len(chosen), *shape))
    solutions: list[list[Floats]] = [[]]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for gain, these in zip(gains[1:], chosen[1:], strict=True):
            solution = solve_closed(gram, reduced, these)
            solutions.append(solution)
            fall = reduced[these[0]] * solution[0]
            ok = solution[0] >= 0  # a singular case has no finite solution
            for i, c in zip(these[1:], solution[1:], strict=True):
                fall = fall + reduced[i] * c
                ok = ok & (c >= 0)
            gain[...] = np.where(ok, fall, 0.0)
    resting = np.array([value or 0.0 for value in held])
    return NonNegative(base - gains.max(axis=0), gains, chosen, solutions, resting)


def solve_closed(gram: Any, moment: Any, chosen: Sequence[int]) -> list[Floats]:
    """Solve for one to three coefficients in closed form: the first of three is eliminated."""
    if len(chosen) == 1:
        (i,) = chosen
        return [moment[i] / gram[i][i]]
    if len(chosen) == 2:
        i, j = chosen
        return _two(gram[i][i], gram[i][j], gram[j][j], moment[i], moment[j])
    i, j, k = chosen
    pivot = gram[i][i]
    to_j, to_k = gram[i][j] / pivot, gram[i][k] / pivot
    second, third = _two(
        gram[j][j] - to_j * gram[i][j],
        gram[j][k] - to_j * gram[i][k],
        gram[k][k] - to_k * gram[i][k],
        moment[j] - to_j * moment[i],
        moment[k] - to_k * moment[i],
    )
    return [moment[i] / pivot - to_j * second - to_k * third, second, third]


def _two(a: Floats, b: Floats, c: Floats, m: Floats, n: Floats) -> list[Floats]:
    """Solve [[a, b], [b, c]] (x, y) = (m, n) by Cramer's rule."""
    det = a * c - b * b
    return [(m * c - n * b) / det, (n * a - m * b) / det]
