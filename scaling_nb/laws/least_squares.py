"""Non-negative least squares of a few coefficients for many right-hand sides at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Floats


@dataclass(frozen=True, slots=True)
class NonNegative:
    """The least cᵀGc - 2mᵀc over c ≥ 0 at every point of a grid.

    Attributes
    ----------
    cost : ndarray, shape (*grid)
    case : ndarray of int, shape (*grid)
        Which of `chosen` are positive; -1 where none.
    chosen : sequence of tuple of int
    solutions : sequence of list of ndarray
        Coefficients of each case, each of a shape that broadcasts to the grid.
    resting : ndarray, shape (p,)
        What a coefficient is in cases it is not of.
    """

    cost: Floats
    case: NDArray[np.int8]
    chosen: Sequence[tuple[int, ...]]
    solutions: Sequence[Sequence[Floats]]
    resting: Floats

    def coefficients(self, index: Any = ...) -> Floats:
        """Return the coefficients at some points of the grid, shape (*points, p)."""
        case = self.case[index]
        out = np.empty((*case.shape, len(self.resting)))
        out[...] = self.resting
        for number in set(case.ravel().tolist()) - {-1}:
            here = case == number
            for i, c in zip(self.chosen[number], self.solutions[number], strict=True):
                whole = c if c.shape == self.case.shape else np.broadcast_to(c, self.case.shape)
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
    cost, case = np.empty(shape), np.full(shape, -1, dtype=np.int8)
    cost[...] = base
    chosen = [c for size in range(len(free), 0, -1) for c in combinations(free, size)]
    solutions = []
    rest: Any = True
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for number, these in enumerate(chosen):
            solution = _normal_equations(gram, reduced, these)
            solutions.append(solution)
            here = base - sum(reduced[i] * c for i, c in zip(these, solution, strict=True))
            ok = solution[0] >= 0  # a singular case has no finite solution
            for c in solution[1:]:
                ok = ok & (c >= 0)
            lower = (here < cost) & ok & rest
            np.copyto(cost, here, where=lower)
            np.copyto(case, number, where=lower)
            if not number:
                # Where all are positive nothing is better; the other cases are for the rest.
                rest = ~lower
                if not rest.any():
                    break
    resting = np.array([value or 0.0 for value in held])
    return NonNegative(cost, case, chosen, solutions, resting)


def _normal_equations(gram: Any, moment: Any, chosen: Sequence[int]) -> list[Floats]:
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
