"""What a fit minimises: Huber of log residuals, or squared residuals, with its derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError

Floats = NDArray[np.float64]
ObjectiveName = Literal["log-huber", "mse"]
DEFAULT_DELTA = 1e-3
"""δ of Hoffmann et al. 2022, appendix D.2."""


class Terms(NamedTuple):
    """One objective f at predictions L̂, per run, so that the objective is Σ f; any shape.

    Attributes
    ----------
    value, slope : ndarray
        f and ∂f/∂L̂.
    scale : ndarray
        ∂²f/∂L̂² of squared residuals; for log-huber that of ln² near no residual, w/L̂².
    residual, capped : ndarray or None
        r = ln L - ln L̂ and what the Huber loss makes of it, within ±δ; None for squared residuals.
    delta : float
    """

    value: Floats
    slope: Floats
    scale: Floats
    residual: Floats | None = None
    capped: Floats | None = None
    delta: float = 0.0

    @property
    def bend(self) -> Floats:
        """∂²f/∂L̂²."""
        if self.residual is None or self.capped is None:
            return self.scale
        return np.asarray(self.scale * ((self.capped == self.residual) + self.capped))

    @property
    def majorant(self) -> Floats:
        """The positive second derivative that iteratively reweighted least squares uses instead."""
        if self.residual is None:
            return self.scale
        return self.scale * (self.delta / np.maximum(np.abs(self.residual), self.delta))


@dataclass(frozen=True, slots=True)
class Objective:
    """``log-huber``: Σ w Huber_δ(ln L - ln L̂). ``mse``: Σ w (L - L̂)².

    Huber_δ(r) = r²/2 for |r| ≤ δ, else δ(|r| - δ/2).

    References
    ----------
    Hoffmann et al. 2022, eq. D.2 (log-huber).
    """

    name: ObjectiveName = "log-huber"
    delta: float = DEFAULT_DELTA

    def __post_init__(self) -> None:
        if self.name not in ("log-huber", "mse"):
            raise FitError(f"objective {self.name!r} is unknown. It must be 'log-huber' or 'mse'.")
        if not self.delta > 0:
            raise FitError(f"delta is {self.delta}, but must be a positive number such as 1e-3.")

    def residuals(self, observed: Floats, predicted: Floats) -> Floats:
        """Return ln L - ln L̂ for log-huber, L - L̂ for mse."""
        if self.name == "mse":
            return observed - predicted
        return np.log(observed) - np.log(predicted)

    def start_weight(self, observed: Floats, weight: Floats) -> Floats:
        """Return weights under which least squares is this objective's first approximation."""
        return weight if self.name == "mse" else weight / observed**2

    def terms(self, observed: Floats, predicted: Floats, weight: Floats) -> Terms:
        """Return value and derivatives with respect to L̂, weighted, per run."""
        if self.name == "mse":
            residual = predicted - observed
            twice = 2.0 * weight
            slope = twice * residual
            return Terms(0.5 * slope * residual, slope, twice)
        r = np.log(observed / predicted)
        inverse = 1.0 / predicted
        capped = np.maximum(np.minimum(r, self.delta), -self.delta)
        psi, scale = weight * capped, weight * (inverse * inverse)
        return Terms(psi * (r - 0.5 * capped), -psi * inverse, scale, r, capped, self.delta)

    def majorant(self, observed: Floats, predicted: Floats, weight: Floats) -> Floats:
        """Return :attr:`Terms.majorant` alone, shape (n_batch, n_runs)."""
        if self.name == "mse":
            return np.broadcast_to(2.0 * weight, predicted.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.abs(np.log(observed / predicted))
            return np.asarray(
                weight / (predicted * predicted) * (self.delta / np.maximum(size, self.delta))
            )

    def value(self, observed: Floats, predicted: Floats, weight: Floats) -> Floats:
        """Return the objective, the weighted sum over runs, shape (n_batch,)."""
        if self.name == "mse":
            cost = predicted - observed
            cost *= cost
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                size = np.abs(np.log(predicted / observed))
            capped = np.minimum(size, self.delta)
            size -= 0.5 * capped
            cost = np.multiply(size, capped, out=size)
        return np.asarray(
            cost @ weight if weight.ndim == 1 else np.einsum("si,si->s", cost, weight)
        )
