"""Which runs the answer hangs on: leave-one-out, and the few that move it most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bootstrap import refit, run_scores
from .boxed_step import active_set
from .notes import FitWarning
from .problem import Problem, evaluate

Floats = NDArray[np.float64]

_MOST_REMOVED = 5
_LARGE_SHIFT = 3.0
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

    Candidates come from the infinitesimal jackknife, taken as a group of one, two or five that
    push the same way; the move is from an actual refit.

    Parameters
    ----------
    minima : ndarray, shape (n_minima, n_free)
        The optimum first.
    names : sequence of str
        Parameters in the order of θ; only exponents are looked at.
    """
    few = [k for k in (1, 2, _MOST_REMOVED) if k <= len(problem.observed) // 8]
    if not few:
        return []
    moves = influence(problem, minima[0], weight) @ problem.mixing.T
    theta = problem.theta(minima[:1])[0]
    usual = np.sqrt(np.sum(moves**2, axis=0))
    jobs = []
    for i, name in enumerate(names):
        if name.startswith(("alpha", "beta")) and problem.mixing[i].any():
            order = np.argsort(moves[:, i], kind="stable")
            jobs += [(i, name, order[:k]) for k in few] + [(i, name, order[-k:]) for k in few]
    if not jobs:
        return []
    weights = np.tile(weight, (len(jobs), 1))
    for row, (_, _, gone) in enumerate(jobs):
        weights[row, gone] = 0.0
    z, _ = refit(problem, minima, weights)
    moved = problem.theta(z)
    found: dict[str, Drivers] = {}
    for row, (i, name, gone) in enumerate(jobs):
        left = influence(problem, z[row], weights[row]) @ problem.mixing[i]
        # Without the runs the parameter may sit on a bound, where it has no error of its own.
        error = float(np.sqrt(np.sum(left**2))) or float(usual[i])
        shift = abs(moved[row, i] - theta[i]) / max(error, 1e-9 * abs(float(theta[i])))
        # Five runs may always move more than one: a group must beat a single run clearly.
        share = shift / np.sqrt(len(gone))
        best = found.get(name)
        if best is None or share > best.shift / np.sqrt(len(best.rows)):
            found[name] = Drivers(
                name=name,
                rows=np.sort(gone),
                before=float(theta[i]),
                after=float(moved[row, i]),
                shift=float(shift),
            )
    return list(found.values())


def describe_drivers(drivers: Sequence[Drivers], ids: Sequence[str]) -> Iterator[FitWarning]:
    """Yield one warning for each exponent that a few runs move far."""
    for item in drivers:
        if item.shift < _LARGE_SHIFT or abs(item.after - item.before) < _SMALL_MOVE:
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
