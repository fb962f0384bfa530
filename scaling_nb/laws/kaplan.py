"""The law of Kaplan et al. 2020: one exponent on the sum of both terms, no irreducible loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import FREE, Floats, Frontier, Input, Parameter
from .chinchilla import ChinchillaLaw
from .numeric import NumericLaw

_PARAMETERS = (
    Parameter(name="N_c", symbol="N_c", meaning="scale of N", low=1e-30, high=1e60),
    Parameter(name="D_c", symbol="D_c", meaning="scale of D", low=1e-30, high=1e60),
    Parameter(
        name="alpha_N", symbol=r"\alpha_N", meaning="exponent of N", low=0.005, high=3.0,
        exponent=True,
    ),
    Parameter(
        name="alpha_D", symbol=r"\alpha_D", meaning="exponent of D", low=0.005, high=3.0,
        exponent=True,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KaplanLaw(NumericLaw):
    """L(N, D) = [(N_c / N)^(α_N / α_D) + D_c / D]^α_D.

    References
    ----------
    Kaplan et al. 2020, eq. 1.5 (N without embeddings).
    """

    name: ClassVar[str] = "Kaplan law"
    formula: ClassVar[str] = "L = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D"
    latex: ClassVar[str] = (
        r"L(N, D) = \left[\left(\frac{N_c}{N}\right)^{\alpha_N / \alpha_D}"
        r" + \frac{D_c}{D}\right]^{\alpha_D}"
    )
    source: ClassVar[str] = "Kaplan et al. 2020, eq. 1.5"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """N_c, D_c, α_N, α_D."""
        return _PARAMETERS

    @property
    def split(self) -> tuple[str, str]:
        """α_N and α_D: a = α_D / (α_N + α_D)."""
        return ("alpha_N", "alpha_D")

    @property
    def inputs(self) -> tuple[Input, ...]:
        """N and D."""
        return ("N", "D")

    def loss(self, params: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
        """Evaluate the formula, by logarithms so that no power overflows."""
        ratio = params["alpha_N"] / params["alpha_D"]
        model = ratio * (np.log(params["N_c"]) - np.log(inputs["N"]))
        data = np.log(params["D_c"]) - np.log(inputs["D"])
        top = np.maximum(np.real(model), np.real(data))
        total = np.log(np.exp(model - top) + np.exp(data - top)) + top
        return np.exp(params["alpha_D"] * total)

    def slopes(self, params: Mapping[str, Any], inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Differentiate ln L = α_D ln(e^m + e^d), m = (α_N/α_D) ln(N_c/N), d = ln(D_c/D)."""
        alpha_n, alpha_d = params["alpha_N"], params["alpha_D"]
        distance = np.log(params["N_c"]) - np.log(inputs["N"])
        model = alpha_n / alpha_d * distance
        data = np.log(params["D_c"]) - np.log(inputs["D"])
        total = np.logaddexp(model, data)
        share = np.exp(model - total)
        loss = np.exp(alpha_d * total)
        return (
            loss * share * alpha_n / params["N_c"],
            loss * (1.0 - share) * alpha_d / params["D_c"],
            loss * share * distance,
            loss * (total - share * model),
        )

    def frontier(self, params: Mapping[str, Any]) -> Frontier:
        """L^(1/α_D) is a sum of two powers: A = N_c^(α_N/α_D), α = α_N/α_D, B = D_c, β = 1."""
        ratio = params["alpha_N"] / params["alpha_D"]
        return Frontier(
            log_A=ratio * np.log(params["N_c"]),
            alpha=ratio,
            log_B=np.log(params["D_c"]),
            beta=np.ones_like(ratio),
        )

    def excess(self, params: Mapping[str, Any], loss: Any) -> Any:
        """L^(1/α_D)."""
        return loss ** (1.0 / params["alpha_D"])

    def starts(self, inputs: Mapping[str, Floats], loss: Floats, weight: Floats) -> Floats:
        """For each α_D of a few, L^(1/α_D) is a Chinchilla law with E = 0 and β = 1."""
        proposals = []
        chinchilla = ChinchillaLaw()
        surface = chinchilla.surface(inputs)
        for alpha_d in np.geomspace(0.03, 0.8, 12):
            power = (loss / loss.max()) ** (1.0 / alpha_d)
            with np.errstate(divide="ignore", over="ignore"):
                slope = (power / (alpha_d * loss)) ** -2
            if not np.isfinite(slope).all():
                continue  # losses so unlike that their powers vanish
            theta = surface.starts(
                power,
                weight * slope,
                type(FREE)(fixed={"E": 0.0, "beta": 1.0}),
            )
            _, a, b, ratio, _ = surface.to_params(theta)[0]
            if a > 0 and b > 0:
                scale = np.log(loss.max()) / alpha_d
                n_c = np.exp(np.clip((np.log(a) + scale) / ratio, -60.0, 130.0))
                d_c = np.exp(np.clip(np.log(b) + scale, -60.0, 130.0))
                alpha_n = np.clip(ratio * alpha_d, 0.006, 2.9)
                proposals.append([n_c, d_c, alpha_n, alpha_d])
        middle_n, middle_d = np.median(inputs["N"]), np.median(inputs["D"])
        proposals.append([middle_n * 1e4, middle_d * 1e4, 0.08, 0.1])
        return np.array(proposals)
