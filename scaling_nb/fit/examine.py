"""Everything a fit should say about itself: status, warnings, profile intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..laws import Law
from ..records import RunTable
from .bootstrap import Resampled
from .boxed_step import active_set
from .compute import FlopModel
from .design import check_design, is_collinear
from .diagnose import (
    AT_BOUND_SHARE,
    STEEP,
    Evidence,
    FittedStatus,
    describe_floor,
    judge,
    scaled_condition,
)
from .frontier import optimum as optimal_split
from .influence import describe_drivers, find_drivers
from .notes import FitWarning
from .outliers import find_outliers
from .profile import Profile, noise_unit, profile, profile_exponent
from .search import Optimum

Floats = NDArray[np.float64]
_MOST_RUNS = 20_000
_STAND_IN = 100
"""Draws from the normal approximation that stand in for a bootstrap where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What :func:`examine` found."""

    status: FittedStatus
    warnings: tuple[FitWarning, ...]
    profiles: Mapping[str, Profile]


def examine(
    law: Law,
    table: RunTable,
    optimum: Optimum,
    drawn: Resampled | None,
    flops: FlopModel,
    *,
    level: float,
) -> Report:
    """Judge a fit.

    Without a bootstrap only what costs next to nothing is looked at, and the spread of the
    answers is that of the normal approximation; influence and profiles come with a bootstrap, for
    tables of up to 20,000 runs.
    """
    problem, best = optimum.problem, optimum.z[0]
    at_bound = _at_bound(optimum)
    bounds = _bounds(law, optimum, at_bound)
    predicted = problem.surface.loss(problem.theta(optimum.z[:1]))[0]
    two = law.answers_allocation
    counted = optimum.weight > 0
    sample, share, on_bound = _sample(optimum, drawn, predicted, at_bound)
    columns = dict(zip(law.param_names, sample.T, strict=True)) if len(sample) else None
    split = columns if two else None
    evidence = Evidence(
        n_runs=int(counted.sum()),
        n_free=len(best),
        bounds=bounds,
        steep=_steep(law, optimum.params, bounds),
        condition=scaled_condition(optimum.gauss_newton, at_bound),
        collinear=two and is_collinear(table.N[counted], table.D[counted]),
        converged=optimum.converged,
        rival=float(optimum.value[1] / optimum.value[0]) if _has_rival(optimum) else np.inf,
        at_bound_share=share,
        often_at_bound=_often(law, optimum, on_bound),
        exponent=None if split is None else _exponents(law, split),
        log_n_star=None if split is None else _log_n_star(law, table, split, flops),
        free={} if columns is None or drawn is None else _free(law, optimum, columns),
        floor_above=_floor_above(optimum),
        resampled=drawn is not None,
    )
    status, notes = judge(evidence, law)
    ids = table.run_ids
    notes += find_outliers(optimum, ids, thorough=drawn is not None)
    notes += check_design(law, table, flops)
    profiles: dict[str, Profile] = {}
    if drawn is not None and len(table) <= _MOST_RUNS:
        drivers = find_drivers(problem, optimum.z[:2], optimum.weight, law.param_names)
        notes += describe_drivers(drivers, ids)
        profiles, floor = _profiles(law, optimum, predicted, bounds)
        notes += floor
    return Report(status=status, warnings=tuple(notes), profiles=profiles)


def _at_bound(optimum: Optimum) -> NDArray[np.bool_]:
    problem = optimum.problem
    z = optimum.z[0]
    pushed = active_set(problem, z[None], optimum.gradient[None])[0]
    return np.asarray(pushed | (z <= problem.lower) | (z >= problem.upper))


def _bounds(law: Law, optimum: Optimum, at_bound: NDArray[np.bool_]) -> dict[str, float]:
    """Return the parameters on a bound, with their raw values."""
    if not at_bound.any():
        return {}
    on = optimum.problem.mixing @ at_bound.astype(float) > 0
    return {
        name: float(value)
        for name, value, hit in zip(law.param_names, optimum.params, on, strict=True)
        if hit
    }


def _steep(law: Law, params: Floats, bounds: Mapping[str, float]) -> dict[str, float]:
    """Return the free exponents beyond :data:`STEEP`."""
    return {
        p.name: float(value)
        for p, value in zip(law.parameters, params, strict=True)
        if p.exponent and value > STEEP and p.name not in bounds
    }


def _has_rival(optimum: Optimum) -> bool:
    return len(optimum.value) > 1 and optimum.value[0] > 1e-12 * len(optimum.weight)


def _sample(
    optimum: Optimum, drawn: Resampled | None, predicted: Floats, at_bound: NDArray[np.bool_]
) -> tuple[Floats, float, Floats]:
    """Return a sample of the parameters, the share of it on a bound, and of each free coordinate.

    The bootstrap's, else a cheap stand-in for it; an empty one where the runs are too few.
    """
    if drawn is not None:
        return drawn.params, drawn.at_bound, drawn.on_bound
    problem = optimum.problem
    if np.count_nonzero(optimum.weight) <= optimum.z.shape[1]:
        return np.empty((0, len(problem.origin))), 0.0, np.zeros(optimum.z.shape[1])
    draws = _stand_in(optimum, predicted, ~at_bound)
    beyond = (draws < problem.lower) | (draws > problem.upper)
    inside = np.clip(draws, problem.lower, problem.upper)
    params = problem.surface.to_params(problem.theta(inside))
    return params, float(beyond.any(axis=1).mean()), beyond.mean(axis=0)


def _stand_in(optimum: Optimum, predicted: Floats, free: NDArray[np.bool_]) -> Floats:
    """Draw from the normal approximation N(z, 2τ H⁻¹), τ the unit of :func:`noise_unit`."""
    problem, z = optimum.problem, optimum.z[0]
    draws = np.tile(z, (_STAND_IN, 1))
    if not free.any():
        return draws
    unit = noise_unit(problem.objective, problem.observed, predicted, optimum.weight, len(z))
    values, vectors = np.linalg.eigh(optimum.hessian[np.ix_(free, free)])
    if values[0] <= 0:
        values, vectors = np.linalg.eigh(optimum.gauss_newton[np.ix_(free, free)])
    root = vectors * np.sqrt(2.0 * unit / np.maximum(values, 1e-12 * values[-1] + 1e-300))
    draws[:, free] += _normal(len(values)) @ root.T
    return draws


@cache
def _normal(n: int) -> Floats:
    """Return the same draws every time: seeding a generator takes longer than all else here."""
    return np.random.RandomState(0).standard_normal((_STAND_IN, n))


def _often(law: Law, optimum: Optimum, share: Floats) -> tuple[str, ...]:
    """Return the parameters that are on a bound in more than a few of the resamples."""
    often = optimum.problem.mixing @ (share > 0.5 * AT_BOUND_SHARE) > 0
    return tuple(name for name, yes in zip(law.param_names, often, strict=True) if yes)


def _free(law: Law, optimum: Optimum, columns: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the sample of each free parameter inside its bounds; of scales, of "ln A"."""
    inside = {}
    for parameter, row in zip(law.parameters, optimum.problem.mixing, strict=True):
        values = columns[parameter.name]
        if row.any():
            values = values[(values > parameter.low) & (values < parameter.high)]
            linear = parameter.exponent or parameter.name == "E"
            name = parameter.name if linear else f"ln {parameter.name}"
            inside[name] = values if linear else np.log(values)
    return inside


def _floor_above(optimum: Optimum) -> tuple[float, int]:
    """Return an E that is held, and how many losses it leaves below it; NaN where it is free."""
    held = optimum.constraints.fixed.get("E")
    if held is None:
        return np.nan, 0
    below = (optimum.problem.observed <= held) & (optimum.weight > 0)
    return float(held), int(below.sum())


def _exponents(law: Law, columns: Mapping[str, Floats]) -> Floats:
    front = law.frontier(columns)
    return np.asarray(front.beta / (front.alpha + front.beta), float)


def _log_n_star(
    law: Law, table: RunTable, columns: Mapping[str, Floats], flops: FlopModel
) -> Floats:
    compute = float(np.max(6.0 * table.N * table.D))
    n, _ = optimal_split(law, columns, compute, flops)
    with np.errstate(divide="ignore"):
        return np.asarray(np.nan_to_num(np.log(n), posinf=700.0, neginf=-700.0), float)


def _profiles(
    law: Law, optimum: Optimum, predicted: Floats, bounds: Mapping[str, float]
) -> tuple[dict[str, Profile], list[FitWarning]]:
    """Profile E and the exponent a, where they are free."""
    problem, best, names = optimum.problem, optimum.z[0], law.param_names
    unit = noise_unit(problem.objective, problem.observed, predicted, optimum.weight, len(best))
    if unit <= 1e-18:
        return {}, []
    profiles: dict[str, Profile] = {}
    notes: list[FitWarning] = []
    if "E" in names and problem.mixing[names.index("E")].any():
        coordinate = int(np.flatnonzero(problem.mixing[names.index("E")])[0])
        floor = profile(problem, best, optimum.weight, "E", coordinate, unit)
        profiles["E"] = floor
        if "E" not in bounds:
            notes += describe_floor(floor, float(problem.observed.min()))
    if law.split is not None:
        i, j = map(names.index, law.split)
        free_i, free_j = np.flatnonzero(problem.mixing[i]), np.flatnonzero(problem.mixing[j])
        if len(free_i) and len(free_j) and free_i[0] != free_j[0]:
            profiles["exponent_N"] = profile_exponent(problem, best, optimum.weight, i, j, unit)
    return profiles, notes
