"""One-variable power laws L(N), L(D), L(C), with and without an irreducible loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ..errors import FitError
from .base import FREE, Constraints, Floats, Input, Law, Parameter
from .power_sum import PowerSumSurface

_E = Parameter(name="E", symbol="E", meaning="irreducible loss")
_A = Parameter(name="A", symbol="A", meaning="scale of the reducible loss")
_ALPHA = Parameter(
    name="alpha", symbol=r"\alpha", meaning="exponent", low=0.005, high=3.0, exponent=True
)


@dataclass(frozen=True, slots=True)
class PowerLaw(Law):
    """L(X) = E + A / X^α, where X is one of N, D, C.

    Parameters
    ----------
    x : {"C", "N", "D"}
        The variable.
    irreducible : bool
        False leaves E out, as in Kaplan et al. 2020.

    References
    ----------
    Kaplan et al. 2020, eqs. 1.1 to 1.3; Henighan et al. 2020, eq. 1.1, for the constant.
    """

    x: Literal["C", "N", "D"] = "C"
    irreducible: bool = True

    name: ClassVar[str] = "power law"
    formula: ClassVar[str] = "L = E + A / X^alpha"
    latex: ClassVar[str] = r"L(X) = E + \frac{A}{X^{\alpha}}"
    source: ClassVar[str] = "Kaplan et al. 2020, eqs. 1.1-1.3; Henighan et al. 2020, eq. 1.1"

    def __post_init__(self) -> None:
        if self.x not in ("C", "N", "D"):
            raise FitError(f"PowerLaw(x={self.x!r}) is unknown: x must be 'C', 'N' or 'D'.")

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """E (if any), A, α."""
        return (_E, _A, _ALPHA) if self.irreducible else (_A, _ALPHA)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The one variable."""
        return (self.x,)

    def loss(self, params: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
        """Evaluate E + A X^-α."""
        reducible = params["A"] * inputs[self.x] ** -params["alpha"]
        return params["E"] + reducible if self.irreducible else reducible

    def reach(self, params: Mapping[str, Any], loss: Any) -> Any:
        """Return the X that reaches `loss`, [A / (L - E)]^(1/α); NaN where none does.

        Parameters
        ----------
        params : mapping of str to float or ndarray
            Scalars, or one for each of many parameter sets.
        loss : float or ndarray
            In the unit of the fit's losses.

        Returns
        -------
        float or ndarray
            X in FLOP, parameters or tokens, as the law has it.
        """
        excess = loss - params["E"] if self.irreducible else loss
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            log_x = (np.log(params["A"]) - np.log(excess)) / params["alpha"]
            return np.exp(log_x)

    def starts(self, inputs: Mapping[str, Floats], loss: Floats, weight: Floats) -> Floats:
        """Return the local minima of a grid over α, each with its best E and A."""
        surface = self.surface(inputs)
        return surface.to_params(surface.starts(loss, weight, FREE))

    def surface(
        self, inputs: Mapping[str, Floats], constraints: Constraints = FREE
    ) -> PowerSumSurface:
        """Lay the law over one table, with exact derivatives."""
        return PowerSumSurface.over(
            self.parameters,
            np.log(inputs[self.x])[None],
            constant=self.irreducible,
            raw=("A" in constraints.fixed,),
        )
