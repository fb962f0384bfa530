"""Any law over one table, its derivatives by complex steps: exact, and nothing to derive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from .base import FREE, Constraints, Floats, Law, Surface

_COMPLEX_STEP = 1e-30
_REAL_STEP = 1e-6


class NumericLaw(Law):
    """A law of which only the formula and some starts are known."""

    __slots__ = ()

    additive: ClassVar[frozenset[str]] = frozenset()
    """Parameters that are only added to the loss: along them nothing bends."""

    def slopes(self, params: Mapping[str, Any], inputs: Mapping[str, Any]) -> Sequence[Any] | None:
        """Return ∂L/∂p for each parameter in raw units, or None: then by complex steps.

        Only a matter of speed: the bootstrap of a law without it is several times slower.
        """
        return None

    def surface(
        self, inputs: Mapping[str, Floats], constraints: Constraints = FREE
    ) -> NumericSurface:
        """Lay the law over one table's inputs."""
        return NumericSurface.over(self, inputs, constraints)


@dataclass(frozen=True, slots=True)
class NumericSurface(Surface):
    """A law over one table; positive parameters with no upper bound enter by their logarithm.

    The Jacobian is Im L(θ + ih e_j) / h, which has no cancellation (Squire & Trapp 1998); the
    curvature is a difference of the weighted Jacobian.

    Attributes
    ----------
    law : Law
    inputs : mapping of str to ndarray, shape (n_runs,)
    logarithmic : ndarray of bool, shape (n_coords,)
        Parameters that enter as ln p.
    free : tuple of int
        Coordinates that are not held; only they are differentiated.
    """

    law: NumericLaw
    inputs: Mapping[str, Floats]
    logarithmic: NDArray[np.bool_]
    free: tuple[int, ...]
    lower: Floats
    upper: Floats

    @classmethod
    def over(
        cls, law: NumericLaw, inputs: Mapping[str, Floats], constraints: Constraints = FREE
    ) -> Self:
        """Lay `law` over the inputs of one table."""
        free = tuple(i for i, n in enumerate(law.param_names) if n not in constraints.fixed)
        low = np.array([p.low for p in law.parameters])
        high = np.array([p.high for p in law.parameters])
        logarithmic = np.array([p.low > 0 and not p.exponent for p in law.parameters])
        with np.errstate(divide="ignore"):
            lower = np.where(logarithmic, np.log(np.maximum(low, 1e-300)), low)
            upper = np.where(logarithmic, np.log(high), high)
        return cls(law, dict(inputs), logarithmic, free, lower, upper)

    def take(self, rows: NDArray[Any]) -> Self:
        """Return the same law over some of the rows."""
        return replace(self, inputs={name: x[rows] for name, x in self.inputs.items()})

    def loss(self, theta: Floats) -> Floats:
        """Evaluate the formula."""
        return np.asarray(self._loss(theta), dtype=np.float64)

    def _loss(self, theta: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = np.asarray(self.law.loss(self._named(theta)[0], self.inputs))
        return np.broadcast_to(found, (len(theta), found.shape[-1]))

    def _named(self, theta: NDArray[Any]) -> tuple[dict[str, Any], NDArray[Any]]:
        """Return raw parameters by name, held ones as one number, and all, (n_batch, n_coords).

        What depends on held parameters alone is then computed once, not for every θ.
        """
        values = np.where(self.logarithmic, np.exp(theta), theta)
        params = {
            name: values[:, i, None] if i in self.free or not len(theta) else values[0, i]
            for i, name in enumerate(self.law.param_names)
        }
        return params, values

    def _jacobian(self, theta: Floats) -> Floats:
        n_runs = len(next(iter(self.inputs.values())))
        if (exact := self._exact(theta, n_runs)) is not None:
            return exact
        out = np.zeros((len(theta), theta.shape[1], n_runs))
        for j in self.free:
            shifted = theta.astype(complex)
            shifted[:, j] += 1j * _COMPLEX_STEP
            out[:, j] = self._loss(shifted).imag / _COMPLEX_STEP
        return out

    def _exact(self, theta: Floats, n_runs: int) -> Floats | None:
        """Return the law's own slopes, turned into the coordinates; None if it has none."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            params, values = self._named(theta)
            slopes = self.law.slopes(params, self.inputs)
            if slopes is None:
                return None
            out = np.zeros((len(theta), theta.shape[1], n_runs))
            for j in self.free:
                chain = values[:, j, None] if self.logarithmic[j] else 1.0
                out[:, j] = slopes[j] * chain
        return out

    def derivatives(self, theta: Floats) -> tuple[Floats, Floats]:
        """Return the loss and its Jacobian."""
        return self.loss(theta), self._jacobian(theta)

    def curvature(self, theta: Floats, jacobian: Floats, weight: Floats) -> Floats:
        """Difference the weighted Jacobian along each coordinate."""
        q = theta.shape[1]
        out = np.zeros((len(theta), q, q))
        for j in self.free:
            if self.law.param_names[j] in self.law.additive:
                continue
            step = _REAL_STEP * np.maximum(np.abs(theta[:, j]), 1e-2)
            ahead = theta.copy()
            ahead[:, j] += step
            difference = self._jacobian(ahead) - jacobian
            out[:, j] = (difference @ weight[:, :, None])[:, :, 0] / step[:, None]
        return np.asarray(0.5 * (out + out.swapaxes(1, 2)))

    def starts(self, loss: Floats, weight: Floats, constraints: Constraints) -> Floats:
        """Return the law's own proposals."""
        return self.to_theta(self.law.starts(self.inputs, loss, weight))

    def to_params(self, theta: Floats) -> Floats:
        """Undo the logarithms."""
        with np.errstate(over="ignore"):
            return np.where(self.logarithmic, np.exp(np.minimum(theta, 700.0)), theta)

    def to_theta(self, params: Floats) -> Floats:
        """Take the logarithms."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.logarithmic, np.log(params), params)
