"""Which runs lie far from the law that the others follow: named, and never dropped.

A fit that outliers have bent accuses healthy runs and hides the guilty. So runs are judged by a
robust fit, refined by least squares on those that agree with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..laws import Constraints
from .descent import descend
from .notes import FitWarning
from .objective import Objective
from .problem import Problem
from .search import Optimum, find_minima, median

Floats = NDArray[np.float64]

OUTLIER = 6.0
"""Standard deviations of the runs that agree beyond which a run is called an outlier."""
_SUSPECT = 4.0
_COARSE = 0.05
"""Log residuals so large at the median that the fit may be bent beyond recognition."""
_GROSS = 0.3
"""Log residual beyond which a run diverged, rather than being a little off."""
_ROUNDS = 4
_TOLERANCE = 1e-2
"""Ample for residuals that are compared with multiples of their spread."""
_MOST_NAMED = 5
_MOST_RUNS = 20_000
_NO_NOISE = 1e-9
_USUAL = 1.0
"""No scaling law in the literature has a larger exponent."""
_NEARLY = 1.5
_MOST_ODD = 0.2


def find_outliers(
    optimum: Optimum, ids: Sequence[str], *, thorough: bool = True
) -> Iterator[FitWarning]:
    """Yield one warning that names the runs far from the law and says how far; none is dropped.

    Unless `thorough`, only gross misfits are worth the milliseconds of a robust fit.
    """
    residual, spread = robust_residuals(optimum, thorough=thorough)
    if spread < _NO_NOISE:
        return
    distance = np.abs(residual) / spread
    far = np.flatnonzero((distance > OUTLIER) & (optimum.weight > 0))
    rows: list[int] = far[np.argsort(-distance[far], kind="stable")].tolist()
    if not rows:
        return
    loss = optimum.problem.observed
    told = [
        f"{ids[i]} (loss {loss[i]:.4g}, the law says {loss[i] * np.exp(-residual[i]):.4g})"
        for i in rows[:_MOST_NAMED]
    ]
    more = f" and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else ""
    yield FitWarning(
        code="outliers",
        message=f"{len(rows)} of {len(loss)} runs {'lies' if len(rows) == 1 else 'lie'} more "
        f"than {OUTLIER:g} robust standard "
        f"deviations from the law of the others: {'; '.join(told)}{more}.",
        remedy="None was dropped. If a run diverged, runs.exclude(ids, reason='diverged').",
        run_ids=tuple(ids[i] for i in rows),
        values={"n_outliers": float(len(rows))},
    )


def robust_residuals(optimum: Optimum, *, thorough: bool = True) -> tuple[Floats, float]:
    """Return ln L - ln L̂ of every run under the law of those that agree, and their spread.

    Where the fit itself leaves no run far off it is taken as it is: then there is nothing to
    find, and it costs nothing. Otherwise a robust fit says which runs agree. Where that fit is
    steep, so that a term exists for a few runs alone, it must compete with one of usual
    exponents: a law that describes the rest nearly as well and does not bend towards them.

    Unless `thorough` the robust fit itself stands for the law of those that agree. It bends a
    little towards some outliers, so that near the threshold it may name one run more, or less.
    """
    problem, z = optimum.problem, optimum.z[0]
    used = optimum.weight > 0
    residual = _log_residuals(problem, z)
    spread = _spread(residual[used])
    worst = float(np.abs(residual[used]).max())
    if thorough:
        suspect = spread > _COARSE or worst > _SUSPECT * spread or _is_steep(problem, z)
    else:
        suspect = worst > _GROSS and (worst > _SUSPECT * spread or spread > 3.0 * _COARSE)
    if not suspect or spread < _NO_NOISE or used.sum() > _MOST_RUNS:
        return residual, spread
    robust = replace(problem, objective=Objective())
    if problem.objective.name == "mse":
        z = _robust_optimum(robust, optimum.constraints, used)
    residual, spread = _trimmed(problem, z, used, refitted=thorough)
    if not _is_steep(problem, z):
        return residual, spread
    usual = replace(robust, upper=np.where(problem.linear, problem.upper, _USUAL))
    z = _robust_optimum(usual, optimum.constraints, used)
    other, rest = _trimmed(usual, z, used, refitted=thorough)
    odd = np.count_nonzero(used & (np.abs(other) > OUTLIER * rest))
    if rest <= _NEARLY * spread and odd <= _MOST_ODD * used.sum():
        return other, rest
    return residual, spread


def _robust_optimum(problem: Problem, constraints: Constraints, used: NDArray[np.bool_]) -> Floats:
    found, order = find_minima(problem, constraints, used.astype(float))
    return np.asarray(found.z[order[0]])


def _is_steep(problem: Problem, z: Floats) -> bool:
    bent = ~problem.linear
    return bool(problem.linear.any() and (z[bent] > _USUAL).any())


def _trimmed(
    problem: Problem, z: Floats, used: NDArray[np.bool_], *, refitted: bool
) -> tuple[Floats, float]:
    """Return the residuals under the law of the runs that agree with it, and their spread.

    Runs within :data:`OUTLIER` spreads agree; the spread is √(Σ r² / (n - p)) of these n runs, p
    parameters; and again, until they stay the same. The law is that of z, or, `refitted`, least
    squares on them.
    """
    residual = _log_residuals(problem, z)
    spread = _spread(residual[used])
    squares = replace(problem, objective=Objective("mse"))
    agree = used & (np.abs(residual) <= OUTLIER * spread)
    for _ in range(_ROUNDS):
        spare = int(agree.sum()) - len(z)
        if spare < 1:
            break
        if refitted:
            weight = agree / problem.observed**2
            z = descend(squares, z, weight, damping=0.0, tolerance=_TOLERANCE)[0].z
            residual = _log_residuals(problem, z)
        spread = float(np.sqrt(np.sum(residual[agree] ** 2) / spare))
        before, agree = agree, used & (np.abs(residual) <= OUTLIER * spread)
        if np.array_equal(before, agree):
            break
    return residual, spread


def _log_residuals(problem: Problem, z: Floats) -> Floats:
    predicted = problem.surface.loss(problem.theta(z[None]))[0]
    return np.asarray(np.log(problem.observed / predicted))


def _spread(residual: Floats) -> float:
    return 1.4826 * median(np.abs(residual - median(residual)))
