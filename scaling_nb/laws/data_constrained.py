"""The data-constrained law of Muennighoff et al. 2023: repeated tokens are worth less and less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from .base import Floats, Frontier, Input, Parameter
from .chinchilla import ChinchillaLaw
from .numeric import NumericLaw

_BASE = ChinchillaLaw().parameters
_PARAMETERS = (
    *(replace(p, low=1e-30) if p.name in ("A", "B") else p for p in _BASE),
    Parameter(
        name="R_D_star",
        symbol="R_D^*",
        meaning="repeats after which more epochs stop helping",
        low=1e-2,
        high=1e6,
    ),
    Parameter(
        name="R_N_star",
        symbol="R_N^*",
        meaning="the same for parameters beyond U_N",
        low=1e-2,
        high=1e6,
    ),
)


# The valley along R_D* is flat and has several minima: starts lie on both sides of each known one.
_REPEATS = (3.0, 10.0, 30.0, 90.0, 300.0)
_EXCESS = (0.7, 1.5, 3.0, 6.0, 40.0)


def _saturating(repeats: Any, star: Any) -> Any:
    """Return 1 + R* (1 - e^(-R/R*)); expm1 keeps it exact where R is far below R*.

    The form ``R* - R* exp(-R/R*)`` loses all digits for large R* and so makes a false minimum.
    """
    return 1.0 - star * np.expm1(-repeats / star)


@dataclass(frozen=True, slots=True)
class DataConstrainedLaw(NumericLaw):
    """L = E + A / N'^α + B / D'^β, with N', D' the effective parameters and tokens.

    D' = U_D [1 + R_D* (1 - e^(-R_D / R_D*))], R_D = D / U_D - 1, where U_D is the number of unique
    tokens seen; N' likewise from U_N = min(N, N_opt(U_D)), the model that U_D tokens would be
    optimal for: N_opt(U_D) = G (U_D G)^(β/α), G = (αA / βB)^(1/(α+β)).

    With no repeats and N ≤ N_opt it is the Chinchilla law. It is fitted to runs with repeats,
    usually with E, A, B, α, β held at a fit to runs without (``fixed=``).

    References
    ----------
    Muennighoff et al. 2023, eqs. 5 to 7 and appendix A.
    """

    name: ClassVar[str] = "data-constrained law"
    formula: ClassVar[str] = "L = E + A / N'^alpha + B / D'^beta"
    latex: ClassVar[str] = (
        r"L = E + \frac{A}{N'^{\alpha}} + \frac{B}{D'^{\beta}},\quad"
        r" D' = U_D\left[1 + R_D^*\left(1 - e^{-R_D / R_D^*}\right)\right]"
    )
    source: ClassVar[str] = "Muennighoff et al. 2023, eqs. 5-7"
    additive: ClassVar[frozenset[str]] = frozenset({"E"})

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """E, A, B, α, β, R_D*, R_N*."""
        return _PARAMETERS

    @property
    def inputs(self) -> tuple[Input, ...]:
        """N, D and unique tokens."""
        return ("N", "D", "unique_tokens")

    def effective(self, params: Mapping[str, Any], inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return N', parameters, and D', tokens: what the repeats are worth."""
        n, d = inputs["N"], inputs["D"]
        unique = np.minimum(inputs["unique_tokens"], d)
        alpha, beta = params["alpha"], params["beta"]
        log_g = (np.log(alpha) + np.log(params["A"]) - np.log(beta) - np.log(params["B"])) / (
            alpha + beta
        )
        log_optimal = (np.log(unique) + log_g) * beta / alpha + log_g
        log_n = np.log(n)
        enough = np.real(log_optimal) >= log_n
        log_unique_n = np.where(enough, log_n, log_optimal)
        unique_n = np.exp(log_unique_n)
        excess = np.where(enough, 0.0, np.expm1(np.where(enough, 0.0, log_n - log_optimal)))
        return (
            unique_n * _saturating(excess, params["R_N_star"]),
            unique * _saturating(d / unique - 1.0, params["R_D_star"]),
        )

    def loss(self, params: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
        """Evaluate the formula."""
        n, d = self.effective(params, inputs)
        return (
            params["E"]
            + params["A"] * np.exp(-params["alpha"] * np.log(n))
            + params["B"] * np.exp(-params["beta"] * np.log(d))
        )

    def slopes(self, params: Mapping[str, Any], inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Differentiate through N' and D'; U_N depends on A, B, α and β where N exceeds N_opt."""
        alpha, beta = params["alpha"], params["beta"]
        scale_a, scale_b = params["A"], params["B"]
        star_d, star_n = params["R_D_star"], params["R_N_star"]
        log_n, d = np.log(inputs["N"]), inputs["D"]
        unique = np.minimum(inputs["unique_tokens"], d)
        total = alpha + beta
        balance = np.log(alpha) + np.log(scale_a) - np.log(beta) - np.log(scale_b)
        log_g = balance / total
        log_optimal = (np.log(unique) + log_g) * beta / alpha + log_g
        over = np.maximum(log_n - log_optimal, 0.0)
        excess, repeats = np.expm1(over), d / unique - 1.0
        share_n, share_d = excess / star_n, repeats / star_d
        lost_n, lost_d = np.expm1(-share_n), np.expm1(-share_d)
        worth_n, worth_d = 1.0 - star_n * lost_n, 1.0 - star_d * lost_d
        log_n_eff = np.minimum(log_n, log_optimal) + np.log(worth_n)
        log_d_eff = np.log(unique) + np.log(worth_d)
        base_n, base_d = np.exp(-alpha * log_n_eff), np.exp(-beta * log_d_eff)
        by_log_n, by_log_d = -alpha * scale_a * base_n, -beta * scale_b * base_d
        lean = np.where(over > 0, 1.0 - (1.0 + lost_n) * (1.0 + excess) / worth_n, 0.0)
        per_g = by_log_n * lean * (beta / alpha + 1.0)
        per_ratio = by_log_n * lean * (np.log(unique) + log_g)
        return (
            np.ones_like(log_d_eff),
            base_n + per_g / (scale_a * total),
            base_d - per_g / (scale_b * total),
            -scale_a * base_n * log_n_eff
            + per_g * (1.0 / alpha - log_g) / total
            - per_ratio * beta / alpha**2,
            -scale_b * base_d * log_d_eff
            + per_g * (-1.0 / beta - log_g) / total
            + per_ratio / alpha,
            -by_log_d / worth_d * (lost_d + share_d * (1.0 + lost_d)),
            -by_log_n / worth_n * (lost_n + share_n * (1.0 + lost_n)),
        )

    def frontier(self, params: Mapping[str, Any]) -> Frontier:
        """Return the Chinchilla frontier: with unique tokens enough for every budget."""
        return ChinchillaLaw().frontier(params)

    def excess(self, params: Mapping[str, Any], loss: Any) -> Any:
        """L - E."""
        return loss - params["E"]

    def starts(self, inputs: Mapping[str, Floats], loss: Floats, weight: Floats) -> Floats:
        """Take the Chinchilla law of the least repeated runs, with a grid over both R*."""
        repeats = inputs["D"] / np.minimum(inputs["unique_tokens"], inputs["D"])
        order = np.argsort(repeats, kind="stable")
        few = order[: max(8, int((repeats <= 1.001).sum()))]
        base = ChinchillaLaw().starts(
            {"N": inputs["N"][few], "D": inputs["D"][few]}, loss[few], weight[few]
        )[0]
        base[1:3] = np.maximum(base[1:3], 1e-3)
        grid = np.array([[rd, rn] for rd in _REPEATS for rn in _EXCESS])
        return np.column_stack([np.tile(base, (len(grid), 1)), grid])
