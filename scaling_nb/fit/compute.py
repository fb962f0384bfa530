"""From N and D to C in a fit's answers: 6·N·D, another constant, or what the runs counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError

Floats = NDArray[np.float64]
_DECAYS = np.linspace(0.05, 1.0, 39)
_GOOD_ENOUGH = 0.02
_TYPICAL = (1e6, 1e9)
_GROWS = 30.0
"""Growth of k(N) between these sizes beyond which it must be FLOP per token."""


def positive(name: str, value: Any) -> float:
    """Return `value` as a float.

    Raises
    ------
    FitError
        If it is no number, or not positive and finite.
    """
    try:
        number = np.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not 0 < number < np.inf:
        raise FitError(f"{name} is {value!r}, but must be a positive, finite number, like 1e22.")
    return number


@dataclass(frozen=True, slots=True, kw_only=True)
class FlopModel:
    """C = k(N) · N · D with k(N) = constant + scale · N^(-decay).

    6·N·D leaves out attention and counts embeddings as if they were multiplied with. Both
    matter less and less as a model grows, which is the second term: at fixed depth they grow
    with the width, that is with √N (decay 1/2).

    Attributes
    ----------
    label : str
        What a person reads.
    constant : float, FLOP per parameter and token
    scale, decay : float
    function : callable or None
        k(N) given by the person; takes the place of the formula.
    """

    label: str = "6ND"
    constant: float = 6.0
    scale: float = 0.0
    decay: float = 0.5
    function: Callable[[Floats], Floats] | None = None

    @property
    def is_constant(self) -> bool:
        """True if k does not depend on N, so that closed forms hold."""
        return self.function is None and self.scale == 0.0

    def per_param_token(self, n_params: Any) -> Any:
        """Return k(N), FLOP per parameter and token."""
        if self.function is not None:
            return np.asarray(self.function(np.asarray(n_params, dtype=float)), dtype=float)
        if self.is_constant:
            return self.constant
        return self.constant + self.scale * np.asarray(n_params, dtype=float) ** -self.decay

    def tokens(self, compute: Any, n_params: Any) -> Any:
        """Return the tokens D that `compute` FLOP pay for at size N."""
        return compute / (self.per_param_token(n_params) * n_params)

    def compute(self, n_params: Any, n_tokens: Any) -> Any:
        """Return C in FLOP."""
        return self.per_param_token(n_params) * n_params * n_tokens

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping.

        Raises
        ------
        FitError
            For a person's own function, which JSON cannot hold.
        """
        if self.function is not None:
            raise FitError(
                "a function that counts FLOP cannot be written as JSON. Write "
                "fit.with_flops('counted') or fit.with_flops(k) with a number k instead."
            )
        return {
            "label": self.label,
            "constant": self.constant,
            "scale": self.scale,
            "decay": self.decay,
        }


SIX_ND = FlopModel()


def learn_flops(n_params: Floats, n_tokens: Floats, compute: Floats) -> FlopModel:
    """Learn k(N) from the runs' own C / (N·D), by least squares of relative errors.

    The constant is 6 where that describes the runs within 2 %, as it does for language models;
    it is free where it does not (a sample may be an image of many patches).

    Raises
    ------
    FitError
        If no run has a C.
    """
    ok = np.isfinite(compute) & (compute > 0)
    if not ok.any():
        raise FitError("no run has a C, so FLOP cannot be learned from the runs. Use flops='6ND'.")
    n, k = n_params[ok], compute[ok] / (n_params[ok] * n_tokens[ok])
    if np.ptp(k) <= 1e-6 * k.max():
        return FlopModel(label=f"{k.mean():.4g} N·D", constant=float(k.mean()))
    candidates = []
    for free in (False, True):
        fits = [_fit_decay(n, k, decay, free=free) for decay in _DECAYS]
        candidates.append(min(fits, key=lambda item: item[0]))
        if candidates[-1][0] <= _GOOD_ENOUGH:
            break
    _, constant, scale, decay = min(candidates, key=lambda item: item[0])
    return FlopModel(label="counted", constant=constant, scale=scale, decay=decay)


def _fit_decay(
    n: Floats, k: Floats, decay: float, *, free: bool
) -> tuple[float, float, float, float]:
    """Return (rms relative error, constant, scale, decay) of k = constant + scale N^-decay."""
    middle = float(np.exp(np.log(n).mean()))
    term = (n / middle) ** -decay / k
    if free:
        design = np.column_stack([1.0 / k, term])
        constant, scale = np.linalg.lstsq(design, np.ones(len(k)), rcond=None)[0]
    else:
        constant = 6.0
        scale = float(term @ (1.0 - constant / k) / (term @ term))
    error = constant / k + scale * term - 1.0
    smallest = constant + scale * min(0.0, (n.min() / middle) ** -decay)
    if constant <= 0 or smallest <= 0:
        return np.inf, 6.0, 0.0, decay
    return float(np.sqrt(np.mean(error**2))), float(constant), float(scale * middle**decay), decay


def as_flops(
    value: FlopModel | str | float | Callable[[Floats], Floats],
    learn: Callable[[], FlopModel] | None = None,
) -> FlopModel:
    """Return the :class:`FlopModel` a person named.

    Parameters
    ----------
    value : FlopModel, "6ND", "counted", float or callable
        A float is k in C = k·N·D; a callable takes N and returns k; ``"counted"`` learns k(N)
        from the runs' own C.
    learn : callable or None
        How to learn it; None where there are no runs.

    Raises
    ------
    FitError
        If it names none, or a callable grows with N as FLOP per token do.
    """
    if isinstance(value, FlopModel):
        return value
    if value == "6ND":
        return SIX_ND
    if value == "counted":
        if learn is None:
            raise FitError("this fit has no runs to learn FLOP from. Pass flops='6ND' or a number.")
        return learn()
    if isinstance(value, str):
        raise FitError(
            f"flops={value!r} is unknown. It must be '6ND', 'counted', a number k in C = k·N·D, "
            "or a function of N that returns k."
        )
    if callable(value):
        model = FlopModel(label="own count", function=value)
        small, large = model.per_param_token(_TYPICAL)
        if not 0 < large < _GROWS * small:
            raise FitError(
                f"flops returns {small:.3g} at N = {_TYPICAL[0]:.0e} and {large:.3g} at N = "
                f"{_TYPICAL[1]:.0e}. It must return k(N) in C = k(N)·N·D, which is near 6: divide "
                "FLOP per token by N."
            )
        return model
    if not value > 0:
        raise FitError(f"flops={value}, but k in C = k·N·D must be positive.")
    return FlopModel(label=f"{value:g} N·D", constant=float(value))
