"""Which runs the answer hangs on: leave-one-out, and the few that move it most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bootstrap import refit, run_scores
from .boxed_step import active_set
from .notes import FitWarning
from .problem import Problem, evaluate

Floats = NDArray[np.float64]

_REMOVED = (1, 2, 5)
_LARGE_SHIFT = 3.0
_OF_CHANCE = 6.5
"""Times k/√n: standard errors that the worst k of n runs move an exponent by chance alone, with
squared residuals, in all but a few tables of a known law."""
_SMALL_MOVE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Drivers:
    """A few runs, and where a parameter goes without them.

    Attributes
    ----------
    name : str
        The parameter.
    rows : ndarray of int
    before, after : float
    shift : float
        The move in standard errors of the fit without them.
    """

    name: str
    rows: NDArray[np.intp]
    before: float
    after: float
    shift: float


class _Group(NamedTuple):
    """Runs whose leaving moves coordinate i of θ up (side 1) or down (-1)."""

    i: int
    side: float
    rows: NDArray[np.intp]


def influence(problem: Problem, z: Floats, weight: Floats) -> Floats:
    """Return the first-order move of each free coordinate when a run leaves, (n_runs, n_free).

    The infinitesimal jackknife: H⁻¹ times the run's own gradient.
    """
    _, gradient, hessian, gauss = evaluate(problem, z[None], weight)
    free = ~active_set(problem, z[None], gradient)[0]
    matrix = hessian[0][np.ix_(free, free)]
    if not len(matrix) or np.linalg.eigvalsh(matrix)[0] <= 0:
        matrix = gauss[0][np.ix_(free, free)]
    out = np.zeros((len(problem.observed), len(z)))
    out[:, free] = run_scores(problem, z, weight)[:, free] @ np.linalg.pinv(matrix, hermitian=True)
    return out


def find_drivers(
    problem: Problem,
    minima: Floats,
    weight: Floats,
    names: Sequence[str],
) -> list[Drivers]:
    """Return, for each exponent, the few runs that move it most, refitted without them.

    Candidates are the one, two or five runs that by the infinitesimal jackknife push furthest the
    same way; and one, with those that push furthest once it is gone, and again: where several
    hide each other one look misses them. The moves are from actual refits.

    Parameters
    ----------
    minima : ndarray, shape (n_minima, n_free)
        The optimum first.
    names : sequence of str
        Parameters in the order of θ; only exponents are looked at.
    """
    few = [k for k in _REMOVED if k <= len(problem.observed) // 8]
    moving = [
        i
        for i, name in enumerate(names)
        if name.startswith(("alpha", "beta")) and problem.mixing[i].any()
    ]
    if not few or not moving:
        return []
    moves = influence(problem, minima[0], weight) @ problem.mixing.T
    theta, usual = problem.theta(minima[:1])[0], np.linalg.norm(moves, axis=0)
    groups = [
        _Group(i, side, _furthest(side * moves[:, i], weight, k))
        for i in moving
        for side in (-1.0, 1.0)
        for k in few
    ]
    found: dict[str, Drivers] = {}
    followed = False
    while groups:
        weights = np.tile(weight, (len(groups), 1))
        for row, group in enumerate(groups):
            weights[row, group.rows] = 0.0
        z, _ = refit(problem, minima, weights)
        further: list[_Group] = []
        for (i, side, rows), at, w in zip(groups, z, weights, strict=True):
            left = influence(problem, at, w) @ problem.mixing[i]
            moved = float(problem.theta(at[None])[0, i])
            # Without the runs the parameter may sit on a bound, where it has no error of its own.
            error = float(np.linalg.norm(left)) or float(usual[i])
            shift = abs(moved - theta[i]) / max(error, 1e-9 * abs(float(theta[i])))
            # Five runs may always move more than one: a group must beat a single run clearly.
            best = found.get(names[i])
            if best is None or shift**2 / len(rows) > best.shift**2 / len(best.rows):
                found[names[i]] = Drivers(
                    name=names[i], rows=np.sort(rows), before=float(theta[i]), after=moved,
                    shift=float(shift),
                )  # fmt: skip
            more = [k - len(rows) for k in few if k > len(rows)]
            if more and (followed or len(rows) == 1):
                rows = np.concatenate([rows, _furthest(side * left, w, more[0])])
                further.append(_Group(i, side, rows))
        groups, followed = further, True
    return list(found.values())


def _furthest(push: Floats, weight: Floats, k: int) -> NDArray[np.intp]:
    """Return the k runs that count and push most."""
    return np.argsort(np.where(weight > 0, -push, np.inf), kind="stable")[:k]


def describe_drivers(drivers: Sequence[Drivers], ids: Sequence[str]) -> Iterator[FitWarning]:
    """Yield one warning for each exponent that a few runs move far."""
    for item in drivers:
        by_chance = _OF_CHANCE * len(item.rows) / np.sqrt(len(ids))
        if item.shift < max(_LARGE_SHIFT, by_chance):
            continue
        if abs(item.after - item.before) < _SMALL_MOVE:
            continue
        who = tuple(ids[i] for i in item.rows)
        n = "1 run moves" if len(who) == 1 else f"{len(who)} runs move"
        far = "over 100" if item.shift > 100 else f"{item.shift:.2g}"
        yield FitWarning(
            code="influential_runs",
            message=f"{n} {item.name} from {item.after:.3g} to {item.before:.3g} "
            f"({far} standard errors): {', '.join(who)}.",
            remedy="Look at them; if something is wrong with them, runs.exclude(ids, reason=...).",
            run_ids=who,
            values={"without": item.after, "with": item.before, "standard_errors": item.shift},
        )
