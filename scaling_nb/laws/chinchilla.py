"""The law of Hoffmann et al. 2022: L = E + A/N^α + B/D^β."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import FREE, Constraints, Floats, Frontier, Input, Law, Parameter
from .power_sum import PowerSumSurface

_PARAMETERS = (
    Parameter(name="E", symbol="E", meaning="irreducible loss"),
    Parameter(name="A", symbol="A", meaning="scale of the loss owed to finite N"),
    Parameter(name="B", symbol="B", meaning="scale of the loss owed to finite D"),
    Parameter(
        name="alpha", symbol=r"\alpha", meaning="exponent of N", low=0.005, high=3.0, exponent=True
    ),
    Parameter(
        name="beta", symbol=r"\beta", meaning="exponent of D", low=0.005, high=3.0, exponent=True
    ),
)


@dataclass(frozen=True, slots=True)
class ChinchillaLaw(Law):
    """L(N, D) = E + A / N^α + B / D^β.

    Parameters are ``E, A, B, alpha, beta`` with N in parameters and D in tokens. The
    compute-optimal N grows as C^a with a = β / (α + β), D as C^b with b = α / (α + β).

    References
    ----------
    Hoffmann et al. 2022, eq. 2 and appendix D.3.
    """

    name: ClassVar[str] = "Chinchilla law"
    formula: ClassVar[str] = "L = E + A / N^alpha + B / D^beta"
    latex: ClassVar[str] = r"L(N, D) = E + \frac{A}{N^{\alpha}} + \frac{B}{D^{\beta}}"
    source: ClassVar[str] = "Hoffmann et al. 2022, eq. 2"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """E, A, B, α, β."""
        return _PARAMETERS

    @property
    def inputs(self) -> tuple[Input, ...]:
        """N and D."""
        return ("N", "D")

    def loss(self, params: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
        """Evaluate E + A N^-α + B D^-β."""
        return (
            params["E"]
            + params["A"] * inputs["N"] ** -params["alpha"]
            + params["B"] * inputs["D"] ** -params["beta"]
        )

    def frontier(self, params: Mapping[str, Any]) -> Frontier:
        """Return the law without E."""
        with np.errstate(divide="ignore"):
            return Frontier(
                log_A=np.log(params["A"]),
                alpha=params["alpha"],
                log_B=np.log(params["B"]),
                beta=params["beta"],
            )

    def excess(self, params: Mapping[str, Any], loss: Any) -> Any:
        """L - E."""
        return loss - params["E"]

    def starts(self, inputs: Mapping[str, Floats], loss: Floats, weight: Floats) -> Floats:
        """Return the local minima of a grid over (α, β), each with its best E, A, B."""
        surface = self.surface(inputs)
        return surface.to_params(surface.starts(loss, weight, FREE))

    def surface(
        self, inputs: Mapping[str, Floats], constraints: Constraints = FREE
    ) -> PowerSumSurface:
        """Lay the law over one table, with exact derivatives."""
        return PowerSumSurface.over(
            self.parameters,
            np.stack([np.log(inputs["N"]), np.log(inputs["D"])]),
            constant=True,
            raw=("A" in constraints.fixed, "B" in constraints.fixed),
        )
