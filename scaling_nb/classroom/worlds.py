"""What decides the losses of a game: a hidden law, or a sweep that was really trained."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Protocol

import numpy as np

from ..errors import PlanError
from ..fit import LawFit, fit_law
from ..laws import ChinchillaLaw
from ..recordings import recorded
from ..records import Run, RunTable

TARGET = 100.0
"""The budget to predict for, in purses."""
LEAST_COST = 0.01
"""Least cost of a run, in purses: what it takes to set one up. Without it, a thousand runs of
next to nothing tell the law of a simulation to three digits, and the purse decides nothing."""
RATIOS = (0.1, 1e4)
"""Tokens per parameter of a run: far outside, one term of a law stands alone and gives itself
away, and no real law was ever measured there."""
REAL = {"stdlib-gpt": "stdlib-gpt-large"}
"""Recorded sweeps to play with, each with the larger one that holds the target."""
NEAR = 1.6
"""Largest factor in N or D between what is asked of a recorded sweep and what it has."""


class World(Protocol):
    """What decides the losses of one game."""

    @property
    def purse(self) -> float: ...
    @property
    def target(self) -> float: ...
    @property
    def truth(self) -> LawFit: ...
    @property
    def measured(self) -> RunTable | None:
        """Runs that were really trained at the target."""

    def sizes(self, cost: float) -> tuple[float, float]:
        """Return the smallest and the largest N that a run of `cost` FLOP can have."""

    def draw(self, n: float, d: float, number: int, bought: Container[str]) -> Run:
        """Return the run that N parameters and D tokens buy, as the `number`-th purchase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """A hidden Chinchilla law, and noise: ln loss = ln L(N, D) + noise · ε."""

    seed: str
    purse: float
    noise: float = 0.005

    @property
    def target(self) -> float:
        """A hundred purses."""
        return TARGET * self.purse

    @property
    def truth(self) -> LawFit:
        """The hidden law."""
        return hidden_law(self.seed, self.purse)

    @property
    def measured(self) -> RunTable | None:
        """None: nothing is trained."""
        return None

    def sizes(self, cost: float) -> tuple[float, float]:
        """Return √(C / 6r) at the largest and at the smallest ratio r of D to N."""
        low, high = (float(np.sqrt(cost / (6.0 * ratio))) for ratio in RATIOS[::-1])
        return low, high

    def draw(self, n: float, d: float, number: int, bought: Container[str]) -> Run:
        """Draw one loss.

        Raises
        ------
        PlanError
            If the run is too cheap, or its N and D are too far apart.
        """
        cost, least = 6.0 * n * d, LEAST_COST * self.purse
        if cost < least * (1 - 1e-9):
            raise PlanError(
                f"this run costs {cost:.3g} FLOP, but a run takes at least {least:.3g}, a "
                "hundredth of the purse: setting one up is not free. Choose more tokens."
            )
        if not RATIOS[0] <= d / n <= RATIOS[1]:
            raise PlanError(
                f"D / N is {d / n:.3g} tokens per parameter, but must be {RATIOS[0]:g} to "
                f"{RATIOS[1]:g}: further out nobody trains. Bring N and D closer together."
            )
        luck = np.random.default_rng([number_of(self.seed), number]).normal()
        return Run(
            run_id=f"run-{number + 1}",
            N=n,
            D=d,
            C=cost,
            loss=float(self.truth.predict(n, d) * np.exp(self.noise * luck)),
            seed=float(number),
            n_total=n,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A recorded sweep: a purchase is the nearest run that was really trained.

    The truth is the law through the runs of the largest budget that can be bought and of the
    three larger ones, which end with the target: it reads a measurement, it extrapolates nothing.
    """

    name: str
    seed: str
    purse: float

    @property
    def target(self) -> float:
        """The largest recorded budget, FLOP."""
        return _real(self.name)[2]

    @property
    def truth(self) -> LawFit:
        """The law through the runs around the target."""
        return _real(self.name)[1]

    @property
    def measured(self) -> RunTable | None:
        """The runs at the target."""
        return _real(self.name)[3]

    def sizes(self, cost: float) -> tuple[float, float]:
        """Return the ends of what is near enough, in N and in C / 6N, to a recorded run."""
        runs = _real(self.name)[0]
        n, same = np.array([run.N for run in runs]), [cost / (6.0 * run.D) for run in runs]
        low, high = np.maximum(n, same) / NEAR, np.minimum(n, same) * NEAR
        near = low <= high
        if not near.any():
            return float(n.min()), float(n.max())
        return float(low[near].min()), float(high[near].max())

    def draw(self, n: float, d: float, number: int, bought: Container[str]) -> Run:
        """Return the nearest recorded run that was not bought yet; its seed is a matter of luck.

        Raises
        ------
        PlanError
            If none is within a factor of 1.6 in N and in D; names the nearest.
        """
        runs = [run for run in _real(self.name)[0] if run.run_id not in bought]
        if not runs:
            raise PlanError("every recorded run is bought. Commit to a prediction.")
        apart = [max(abs(np.log(run.N / n)), abs(np.log(run.D / d))) for run in runs]
        nearest = runs[int(np.argmin(apart))]
        if min(apart) > np.log(NEAR):
            raise PlanError(
                f"no run near N = {n:.3g} and D = {d:.3g} was recorded, or none is left. The "
                f"nearest has N = {nearest.N:.3g} and D = {nearest.D:.3g}: ask for that."
            )
        alike = [run for run in runs if (run.N, run.D) == (nearest.N, nearest.D)]
        return alike[
            int(np.random.default_rng([number_of(self.seed), number]).integers(len(alike)))
        ]


def world(seed: str, *, purse: float | None, noise: float, recorded: str) -> World:
    """Return what decides the losses of a game.

    Raises
    ------
    PlanError
        If the purse or the noise is no such number, or there is no such sweep to play with.
    """
    if recorded and recorded not in REAL:
        raise PlanError(
            f"recorded={recorded!r} cannot be played with. There is {', '.join(map(repr, REAL))}."
        )
    if purse is None:
        purse = _real(recorded)[2] / 4 if recorded else 1e19
    if not (np.isfinite(purse) and purse > 0 and noise >= 0):
        raise PlanError("purse must be a positive number of FLOP, and noise at least 0.")
    if recorded:
        return Recorded(name=recorded, seed=seed, purse=float(purse))
    return Simulated(seed=seed, purse=float(purse), noise=noise)


def hidden_law(seed: str, purse: float) -> LawFit:
    """Draw the law of a game: a Chinchilla law whose optimum at the target is no textbook's.

    E, α, β, the reducible loss R at C = purse and the optimal tokens per parameter at the target,
    20·f or 20/f with f from 4 to 14, are drawn: so that who spends nothing and says "20 tokens per
    parameter" is wrong by a factor of two in N or more. With r the ratio at C = purse,
    A/N^α = Rβ/(α+β) and B/D^β = Rα/(α+β) at that optimum give A and B.
    """
    rng = np.random.default_rng(number_of(seed))
    e, alpha, beta, reducible = rng.uniform([1.4, 0.28, 0.28, 0.6], [2.0, 0.42, 0.42, 1.2])
    factor = float(np.exp(rng.uniform(np.log(4.0), np.log(14.0))))
    at_target = 20.0 * factor if rng.random() < 0.5 else 20.0 / factor
    # D / N at the optimum grows as C^((α − β) / (α + β)).
    ratio = at_target / TARGET ** ((alpha - beta) / (alpha + beta))
    n = np.sqrt(purse / (6.0 * ratio))
    params: Mapping[str, float] = {
        "E": float(e),
        "A": float(reducible * beta / (alpha + beta) * n**alpha),
        "B": float(reducible * alpha / (alpha + beta) * (n * ratio) ** beta),
        "alpha": float(alpha),
        "beta": float(beta),
    }
    return LawFit(
        law=ChinchillaLaw(),
        params=MappingProxyType(params),
        status="published",
        source=f"the hidden law of game {seed}",
    )


def number_of(seed: str) -> int:
    """Return a seed's number."""
    return int.from_bytes(hashlib.sha256(f"classroom {seed}".encode()).digest()[:8], "big")


@cache
def _real(name: str) -> tuple[tuple[Run, ...], LawFit, float, RunTable]:
    """Return the runs that can be bought, the truth, the target and the runs measured there."""
    small, large = recorded(name), recorded(REAL[name])
    target = float(large.column("budget").max())
    largest = float(small.column("budget").max())
    near = [run for run in (*small, *large) if run.budget >= largest]
    truth = fit_law(RunTable.from_runs(near), flops="counted", bootstrap=0)
    measured = RunTable.from_runs([run for run in large if run.budget == target])
    truth = replace(truth, source=f"{len(near)} recorded runs around the target")
    return tuple(small), truth, target, measured
