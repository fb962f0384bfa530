"""Everything a fit should say about itself: status, warnings, profile intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..laws import Law
from ..records import RunTable
from .bootstrap import Resampled
from .compute import FlopModel
from .design import check_design, is_collinear
from .diagnose import STEEP, Evidence, FittedStatus, describe_floor, judge, scaled_condition
from .frontier import optimum as optimal_split
from .influence import describe_drivers, find_drivers, find_outliers
from .newton import active_set
from .notes import FitWarning
from .profile import Profile, noise_unit, profile, profile_exponent
from .search import Optimum

Floats = NDArray[np.float64]
_MOST_RUNS = 20_000


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

    Without a bootstrap only what costs next to nothing is looked at; influence and profiles come
    with one, for tables of up to 20,000 runs.
    """
    problem, best = optimum.problem, optimum.z[0]
    bounds = _bounds(law, optimum)
    two = law.answers_allocation
    evidence = Evidence(
        n_runs=len(table),
        n_free=len(best),
        bounds=bounds,
        steep=_steep(law, optimum.params, bounds),
        condition=scaled_condition(optimum.gauss_newton, _at_bound(optimum)),
        collinear=two and is_collinear(table.N, table.D),
        converged=optimum.converged,
        rival=float(optimum.value[1] / optimum.value[0]) if _has_rival(optimum) else np.inf,
        at_bound_share=drawn.at_bound if drawn else 0.0,
        exponent=_exponents(law, drawn) if two and drawn else None,
        log_n_star=_log_n_star(law, table, drawn, flops) if two and drawn else None,
    )
    status, notes = judge(evidence, law)
    predicted = problem.surface.loss(problem.theta(optimum.z[:1]))[0]
    residuals = np.log(problem.observed / predicted)
    ids = table.run_ids
    notes += find_outliers(residuals, problem.observed, ids)
    notes += check_design(law, table)
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


def _bounds(law: Law, optimum: Optimum) -> dict[str, float]:
    """Return the parameters on a bound, with their raw values."""
    on = optimum.problem.mixing @ _at_bound(optimum).astype(float) > 0
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


def _columns(law: Law, drawn: Resampled) -> dict[str, Floats]:
    return dict(zip(law.param_names, drawn.params.T, strict=True))


def _exponents(law: Law, drawn: Resampled) -> Floats:
    front = law.frontier(_columns(law, drawn))
    return np.asarray(front.beta / (front.alpha + front.beta), float)


def _log_n_star(law: Law, table: RunTable, drawn: Resampled, flops: FlopModel) -> Floats:
    compute = float(np.max(6.0 * table.N * table.D))
    n, _ = optimal_split(law, _columns(law, drawn), compute, flops)
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
    if {"alpha", "beta"} <= set(names):
        i, j = names.index("alpha"), names.index("beta")
        free_i, free_j = np.flatnonzero(problem.mixing[i]), np.flatnonzero(problem.mixing[j])
        if len(free_i) and len(free_j) and free_i[0] != free_j[0]:
            profiles["exponent_N"] = profile_exponent(problem, best, optimum.weight, i, j, unit)
    return profiles, notes
