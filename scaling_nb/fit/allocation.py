"""An answer to a budget as a record, and the words and tables in which it shows itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

import numpy as np

from ..plain_text import plain_text
from ..records import TOKENS
from .held_out import HeldOut
from .notes import FitWarning

Interval = tuple[float, float]
_TRIFLE = 1e-4
"""Share of the loss below which giving it up is not worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The ranges of N (parameters), D and C (FLOP) that a fit has seen, low to high.

    ``unit`` is what D counts.
    """

    N: Interval
    D: Interval
    C: Interval
    unit: str = TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """How to spend a compute budget.

    Attributes
    ----------
    compute : float, FLOP
        Training compute of this allocation.
    n_params : float, parameters
    n_tokens : float, tokens
        Tokens seen in training, repeats included.
    loss : float
        Predicted, in the unit of the fit's losses.
    tokens_per_param : float
    intervals : mapping of str to (low, high)
        Bootstrap interval at ``level`` of each of the four answers; empty without a bootstrap.
    near_optimal : (low, high), parameters
        Sizes whose loss at the compute that was asked for is within ``within`` of the best; with
        ``inference_tokens``, sizes that reach the loss with a lifetime compute within it of the
        least.
    within : float
        Share of the loss, or of the lifetime compute, that ``near_optimal`` allows.
    extrapolation : float
        Compute over the largest compute among the runs; NaN where there were none.
    loss_given_up : float
        Loss above the compute-optimal loss at the same compute.
    deadweight_compute : float, FLOP
        Compute beyond what the compute-optimal model needs for the same loss.
    unique_tokens, epochs : float
        Unique tokens, and passes over them.
    inference_tokens, lifetime_compute : float
        Tokens the model will serve, and training plus inference FLOP.
    level : float
        Of the intervals.
    unit : str
        What D counts, as the runs say.
    held_out : HeldOut or None
        How well the same law, fitted to the smaller budgets, predicts the largest.
    notes : tuple of FitWarning
    """

    compute: float
    n_params: float
    n_tokens: float
    loss: float
    tokens_per_param: float
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    near_optimal: Interval
    within: float
    extrapolation: float
    loss_given_up: float = 0.0
    deadweight_compute: float = 0.0
    unique_tokens: float
    epochs: float = 1.0
    inference_tokens: float = 0.0
    lifetime_compute: float
    level: float = 0.90
    unit: str = TOKENS
    held_out: HeldOut | None = None
    notes: tuple[FitWarning, ...] = ()

    @property
    def extrapolates(self) -> bool:
        """Whether the budget is beyond the largest run, by more than its own rounding to steps."""
        return bool(np.isfinite(self.extrapolation) and self.extrapolation > 1.01)

    _repr_pretty_ = plain_text

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def _repr_html_(self) -> str:
        head = f"{100 * self.level:.0f} % interval"
        rows = "".join(
            f"<tr><th>{escape(label)}</th><td>{value}</td><td>{ends}</td></tr>"
            for label, value, ends in _rows(self)
        )
        told = "".join(f"<br>{escape(line)}" for line in _remarks(self))
        notes = "".join(f"<li>{escape(str(note))}</li>" for note in self.notes)
        return (
            f"<table><tr><th></th><th>answer</th><th>{head}</th></tr>{rows}</table>"
            f"<p>{told.removeprefix('<br>')}</p>{'<ul>' + notes + '</ul>' if notes else ''}"
        )


def _rows(answer: Allocation) -> list[tuple[str, str, str]]:
    """Return label, value and interval of each number that is asked for."""
    rows = [("training FLOP C", f"{answer.compute:.4g}", "")]
    for label, key in (
        ("parameters N", "n_params"),
        (f"{answer.unit} D", "n_tokens"),
        ("loss", "loss"),
        (f"{answer.unit}/parameter", "tokens_per_param"),
    ):
        interval = answer.intervals.get(key)
        ends = f"{interval[0]:.4g} to {interval[1]:.4g}" if interval else ""
        rows.append((label, f"{getattr(answer, key):.4g}", ends))
    if answer.inference_tokens:
        rows.append(("lifetime FLOP", f"{answer.lifetime_compute:.4g}", ""))
    return rows


def _remarks(answer: Allocation) -> list[str]:
    """Return what puts the numbers in perspective, a line each."""
    lines = []
    if np.isfinite(answer.within):
        best = "least lifetime FLOP" if answer.inference_tokens else "best loss"
        lines.append(
            f"within {100 * answer.within:g} % of {best}: N from {answer.near_optimal[0]:.3g} "
            f"to {answer.near_optimal[1]:.3g}"
        )
    if answer.loss_given_up > _TRIFLE * answer.loss:
        lines.append(
            f"gives up {answer.loss_given_up:.3g} in loss against the best N for this C; spends "
            f"{answer.deadweight_compute:.3g} FLOP "
            f"({answer.deadweight_compute / answer.compute:.0%}) more than its loss needs"
        )
    if answer.extrapolates:
        lines.append(f"extrapolating {answer.extrapolation:.3g} times beyond the largest run")
    if answer.epochs > 1:
        lines.append(
            f"{answer.epochs:.3g} epochs over {answer.unique_tokens:.3g} unique {answer.unit}"
        )
    if (tested := answer.held_out) is not None:
        lines.append(
            f"back-test: {tested.hidden}, hidden ({tested.extrapolation:.3g} times further), "
            f"predicted within {100 * tested.rmse:.2g} %"
        )
    return lines


def _lines(answer: Allocation) -> list[str]:
    level = f"{100 * answer.level:.0f} %"
    shown = [
        f"{label:<20}{value}" + (f"  ({level}: {ends})" if ends else "")
        for label, value, ends in _rows(answer)
    ]
    return [*shown, *_remarks(answer), *(f"! {note}" for note in answer.notes)]
