"""From an optimum and its bootstrap to a status: what the runs determine, and what they do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import counted
from ..laws import Law
from .notes import FitWarning
from .profile import Profile

Floats = NDArray[np.float64]
FittedStatus = Literal["converged", "at_bound", "ill_conditioned", "not_identified"]

ILL_CONDITIONED = 1e8
"""Condition number of the scaled Gauss-Newton matrix beyond which digits are lost."""
SINGULAR = 1e13
WIDE_EXPONENT = 0.5
"""Width of the 90 % interval of a, whose whole range is 0 to 1, at which it says nothing."""
WIDE_RATIO = 30.0
VAGUE_EXPONENT = 5.0
"""Ratio of the ends of the 90 % interval of a single exponent at which it says nothing."""
AT_BOUND_SHARE = 0.05
STEEP = 1.5
"""Exponent beyond which a term vanishes so fast that only the smallest runs speak of it."""
_FLAT_E = 0.3
_BINS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the status is judged by.

    Attributes
    ----------
    n_runs, n_free : int
    bounds : mapping of str to float
        Parameters that ended on a bound, with the bound.
    steep : mapping of str to float
        Exponents beyond :data:`STEEP`.
    condition : float
        Of the scaled Gauss-Newton matrix over the parameters not on a bound.
    collinear : bool
        ln N and ln D of the runs lie on one line.
    converged : bool
        The solver's own report.
    rival : float
        Objective of the second-best local minimum over the best; inf where there is one only.
    at_bound_share : float
        Of resamples on a bound.
    often_at_bound : tuple of str
        Parameters that a good part of these are on a bound of.
    exponent : ndarray or None
        Sample of a: the bootstrap's, or the normal approximation's.
    log_n_star : ndarray or None
        The same, of ln N* at the largest compute among the runs.
    resampled : bool
        Whether both are of the bootstrap.
    free : mapping of str to ndarray
        The bootstrap's of each free parameter, inside its bounds; of scales, of "ln A".
    floor_above : (float, int)
        An E that is held, and how many losses are not above it.
    """

    n_runs: int
    n_free: int
    bounds: Mapping[str, float]
    steep: Mapping[str, float]
    condition: float
    collinear: bool
    converged: bool
    rival: float
    at_bound_share: float = 0.0
    often_at_bound: tuple[str, ...] = ()
    exponent: Floats | None = None
    log_n_star: Floats | None = None
    resampled: bool = True
    free: Mapping[str, Floats] = field(default_factory=dict)
    floor_above: tuple[float, int] = (np.nan, 0)


def scaled_condition(gauss_newton: Floats, held: NDArray[np.bool_]) -> float:
    """Return the condition number with every free coordinate in its own unit."""
    free = ~held
    matrix = gauss_newton[free][:, free]
    if not matrix.size:
        return 1.0
    size = np.sqrt(matrix.diagonal())
    if not (size > 0).all():
        return np.inf
    eigenvalues = np.linalg.eigvalsh(matrix / size[:, None] / size)
    return float(eigenvalues[-1] / max(float(eigenvalues[0]), 1e-300))


def modes(sample: Floats) -> list[float]:
    """Return the peaks of a sample's smoothed density that a valley clearly separates.

    A peak counts if the density falls below half of it before it rises to a higher one, and if a
    tenth of the sample belongs to it.
    """
    sample = np.sort(sample[np.isfinite(sample)])
    if len(sample) < 50 or np.ptp(sample) <= 1e-9 * (np.abs(sample).max() + 1e-300):
        return [float(np.median(sample))] if len(sample) else []
    spread = min(float(sample.std()), float(np.subtract(*np.quantile(sample, [0.75, 0.25]))) / 1.34)
    width = 0.9 * max(spread, 1e-3 * float(np.ptp(sample))) * len(sample) ** -0.2
    low, high = np.quantile(sample, [0.005, 0.995])
    counts, edges = np.histogram(sample, _BINS, range=(low - 3 * width, high + 3 * width))
    grid = 0.5 * (edges[:-1] + edges[1:])
    far = int(4.0 * width / (grid[1] - grid[0]))
    kernel = np.exp(-0.5 * ((grid[1] - grid[0]) * np.arange(-far, far + 1) / width) ** 2)
    density = np.convolve(counts, kernel)[far : far + _BINS]
    inner = density[1:-1]
    peaks = np.flatnonzero((inner > density[:-2]) & (inner >= density[2:])) + 1
    kept: list[int] = []
    for peak in peaks:
        if kept and density[kept[-1] : peak + 1].min() > 0.5 * min(
            density[kept[-1]], density[peak]
        ):
            if density[peak] > density[kept[-1]]:
                kept[-1] = int(peak)
        else:
            kept.append(int(peak))
    if len(kept) < 2:
        return [float(np.median(sample))]
    valleys = [grid[a + int(np.argmin(density[a : b + 1]))] for a, b in pairwise(kept)]
    heaps = np.diff(np.searchsorted(sample, [-np.inf, *valleys, np.inf]))
    return [float(grid[k]) for k, c in zip(kept, heaps, strict=True) if c >= 0.1 * len(sample)]


def judge(evidence: Evidence, law: Law) -> tuple[FittedStatus, list[FitWarning]]:
    """Return the status and the sentences that explain it."""
    gravest: FittedStatus = "converged"
    notes: list[FitWarning] = []
    for status, note in _findings(evidence, law):
        notes.append(note)
        if _ORDER.index(status) > _ORDER.index(gravest):
            gravest = status
    return gravest, notes


_ORDER: Sequence[FittedStatus] = ("converged", "ill_conditioned", "at_bound", "not_identified")


def _findings(e: Evidence, law: Law) -> Iterator[tuple[FittedStatus, FitWarning]]:
    if e.n_runs <= e.n_free:
        yield (
            "not_identified",
            FitWarning(
                code="no_spare_runs",
                message=f"{e.n_runs} runs for {e.n_free} parameters: the law passes through the "
                "runs whatever they are, and no interval can be had.",
                remedy="Add runs, at least twice as many as parameters.",
            ),
        )
    elif e.n_runs < 2 * e.n_free:
        yield (
            "ill_conditioned",
            FitWarning(
                code="few_runs",
                message=f"Only {e.n_runs} runs for {e.n_free} parameters: intervals mean little.",
                remedy="Add runs, at least twice as many as parameters.",
            ),
        )
    if e.collinear:
        yield (
            "not_identified",
            FitWarning(
                code="collinear_design",
                message="N and D of the runs lie on one line (such as a fixed D/N), so their "
                "effects cannot be told apart.",
                remedy="At some budgets add runs with other D/N: a few smaller and larger models.",
            ),
        )
    held, below = e.floor_above
    if below:
        yield (
            "ill_conditioned",
            FitWarning(
                code="floor_above_losses",
                message=f"E is held at {held:g}, but {counted(below, 'run')} of {e.n_runs} "
                f"{'has' if below == 1 else 'have'} a loss no higher, which the law cannot reach.",
                remedy="Hold E at a lower value, or leave it free.",
                values={"E": held, "runs": float(below)},
            ),
        )
    for name, value in e.bounds.items():
        yield "at_bound", _bound_note(name, value)
    for name, value in e.steep.items():
        yield (
            "ill_conditioned",
            FitWarning(
                code="steep_exponent",
                message=f"{name} is {value:.2f}, far steeper than any known scaling law: a few of "
                "the smallest runs decide it.",
                remedy="Look for outliers among them, or fit with objective='log-huber'.",
                values={name: value},
            ),
        )
    if not e.collinear and e.condition > ILL_CONDITIONED:
        singular = e.condition > SINGULAR
        yield (
            "not_identified" if singular else "ill_conditioned",
            FitWarning(
                code="ill_conditioned",
                message=f"Parameters trade off against each other (condition number "
                f"{e.condition:.1g}): many sets of them describe the runs equally well.",
                remedy="Widen the ranges of N and D, or hold a parameter with fixed=.",
                values={"condition": e.condition},
            ),
        )
    if not e.converged:
        yield (
            "ill_conditioned",
            FitWarning(
                code="solver_stopped",
                message="The solver stopped before its last step was negligible.",
                remedy="Look for runs with extreme values, or hold a parameter with fixed=.",
            ),
        )
    if e.rival < 1.0 + 1e-3:
        yield (
            "ill_conditioned",
            FitWarning(
                code="rival_optimum",
                message="Another set of parameters describes the runs within 0.1 % as well.",
                remedy="Add runs where the two disagree most: the largest budgets.",
                values={"ratio": e.rival},
            ),
        )
    yield from _sample_findings(e, law)


def _middle(sample: Floats) -> Floats:
    """Return the 5 % and 95 % quantiles; on small samples far faster than np.quantile."""
    at = np.array([0.05, 0.95]) * (len(sample) - 1)
    return np.asarray(np.interp(at, np.arange(len(sample)), np.sort(sample)))


def _sample_findings(e: Evidence, law: Law) -> Iterator[tuple[FittedStatus, FitWarning]]:
    if not e.bounds and e.at_bound_share > AT_BOUND_SHARE:
        yield "ill_conditioned", _resamples_at_bound(e)
    if e.resampled and (groups := _groups(e)) is not None:
        name, peaks = groups
        yield (
            "ill_conditioned",
            FitWarning(
                code="bimodal_bootstrap",
                message=f"The resamples fall into separate groups, with {name} near "
                f"{' and '.join(f'{p:.3g}' for p in peaks)}: a few runs decide between them.",
                remedy="Look at influential runs, and add runs at the smallest and largest "
                "budgets.",
            ),
        )
    if not law.answers_allocation and len(e.free.get("alpha", ())):
        low, high = _middle(e.free["alpha"])
        if high > VAGUE_EXPONENT * low:
            yield (
                "not_identified",
                FitWarning(
                    code="exponent_says_nothing",
                    message=f"The 90 % interval of the exponent alpha is {low:.2f} to {high:.2f}: "
                    f"the runs do not say how the loss falls with {law.inputs[0]}.",
                    remedy=f"Add runs over a wider range of {law.inputs[0]}, or hold E with "
                    "fixed={'E': ...}.",
                    values={"low": float(low), "high": float(high)},
                ),
            )
    if len(e.free.get("ln R_D_star", ())):
        low, high = np.exp(_middle(e.free["ln R_D_star"]))
        if high > WIDE_RATIO * low:
            yield (
                "ill_conditioned",
                FitWarning(
                    code="repeats_say_nothing",
                    message=f"The 90 % interval of R_D* is {low:.2g} to {high:.2g}: the runs do "
                    "not say what repeated data are worth.",
                    remedy="Add runs of many more epochs, or hold R_D_star with fixed=.",
                    values={"low": float(low), "high": float(high)},
                ),
            )
    if e.exponent is not None:
        low, high = _middle(e.exponent)
        if high - low > WIDE_EXPONENT:
            yield (
                "not_identified",
                FitWarning(
                    code="exponent_says_nothing",
                    message=f"The 90 % interval of the exponent a is {low:.2f} to {high:.2f}: the "
                    "runs do not say how N should grow with compute.",
                    remedy="Add budgets further apart, with sizes on both sides of each minimum.",
                    values={"low": float(low), "high": float(high)},
                ),
            )
    if e.log_n_star is not None:
        low, high = np.exp(_middle(e.log_n_star))
        if high > WIDE_RATIO * low:
            yield (
                "not_identified",
                FitWarning(
                    code="optimum_says_nothing",
                    message="At the largest compute of the runs the 90 % interval of N* "
                    + (
                        f"is {low:.2g} to {high:.2g}."
                        if high < 1e6 * low
                        else "spans more than six orders of magnitude."
                    ),
                    remedy="Add sizes on both sides of each minimum.",
                    values={"low": float(low), "high": float(high)},
                ),
            )


def _resamples_at_bound(e: Evidence) -> FitWarning:
    of = f"a bound of {', '.join(e.often_at_bound)}" if e.often_at_bound else "a bound"
    if "E" in e.often_at_bound:
        remedy = "Add larger budgets, or hold E with fixed={'E': ...}."
    elif any(name.startswith("R_") for name in e.often_at_bound):
        remedy = "Add runs of many more epochs, or hold it with fixed=."
    else:
        remedy = "Widen the ranges of N and D, look for outliers, or hold it with fixed=."
    return FitWarning(
        code="resamples_at_bound",
        message=f"{100 * e.at_bound_share:.0f} % of the resamples "
        f"{'end' if e.resampled else 'would end'} on {of}.",
        remedy=remedy,
        values={"share": e.at_bound_share},
    )


def _groups(e: Evidence) -> tuple[str, list[float]] | None:
    """Return the first of a and the free parameters whose resamples fall into groups, and where."""
    named = {} if e.exponent is None else {"a": e.exponent}
    for name, sample in {**named, **e.free}.items():
        peaks = modes(sample)
        if len(peaks) > 1:
            scale = name.removeprefix("ln ")
            return scale, peaks if scale == name else np.exp(peaks).tolist()
    return None


def _bound_note(name: str, value: float) -> FitWarning:
    if name == "E":
        return FitWarning(
            code="at_bound",
            message="The irreducible loss E ended at 0: the runs show no floor.",
            remedy="Predictions far beyond the runs will be too low. Add larger budgets, or hold E "
            "with fixed={'E': ...}.",
            values={"E": value},
        )
    if name in ("A", "B"):
        return FitWarning(
            code="at_bound",
            message=f"The scale {name} ended at 0: the runs show no effect of "
            f"{'N' if name == 'A' else 'D'}.",
            remedy=f"Widen the range of {'N' if name == 'A' else 'D'}.",
            values={name: value},
        )
    if name.startswith("R_"):
        return FitWarning(
            code="at_bound",
            message=f"{name} ended on its bound {value:.3g}: the runs do not say what repeated "
            "data are worth.",
            remedy="Add runs of many more epochs, or hold it with fixed=.",
            values={name: value},
        )
    return FitWarning(
        code="at_bound",
        message=f"{name} ended on its bound {value:.3g}: the runs do not determine it.",
        remedy="Widen the ranges of N and D, look for outliers, or hold it with fixed=.",
        values={name: value},
    )


def describe_floor(profile: Profile, smallest_loss: float) -> Iterator[FitWarning]:
    """Yield a warning if the profile of E excludes little of what E could be."""
    low, high = profile.interval
    if low <= 0.0 or high - low > _FLAT_E * smallest_loss:
        yield FitWarning(
            code="irreducible_loss_not_identified",
            message=f"The irreducible loss is not identified: its profile is flat from "
            f"E = {max(low, 0.0):.3g} to {high:.3g}.",
            remedy="Add larger budgets (each tenfold helps), or hold E with fixed={'E': ...}.",
            values={"low": max(low, 0.0), "high": high},
        )
