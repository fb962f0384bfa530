"""A fit that answers as it was asked: with the data there are, and the tokens to serve."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import FitError
from ..fit import Allocation, IsoFlopFit, LawFit
from ..fit.allocation import Scope
from ..fit.table import chinchilla_table, decades


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """A fit under a data cap and a serving load, where figures and tables take a fit.

    Attributes
    ----------
    fit : IsoFlopFit or LawFit
    max_tokens, inference_tokens : float or None, tokens
    """

    fit: IsoFlopFit | LawFit
    max_tokens: float | None = None
    inference_tokens: float | None = None

    @property
    def unit(self) -> str:
        """What D counts."""
        return self.fit.unit

    @property
    def scope(self) -> Scope | None:
        """What the fit has seen."""
        return self.fit.scope

    def allocate(self, compute: float) -> Allocation:
        """Return N, D and loss for `compute` FLOP.

        With tokens to serve, the answer reaches the loss of `compute` and trains with more.

        Raises
        ------
        FitError
            Data caps and serving need a law.
        """
        if isinstance(self.fit, LawFit):
            return self.fit.allocate(
                compute,
                max_tokens=self.max_tokens,
                inference_tokens=self.inference_tokens or 0.0,
            )
        if self.max_tokens or self.inference_tokens:
            raise FitError(
                f"a data cap or {self.unit} to serve need a law of N and D. Choose Approach 3 as "
                "the method."
            )
        return self.fit.allocate(compute)

    def chinchilla_table(
        self, budgets: Sequence[float] | None = None, *, format: str = "frame"
    ) -> Any:
        """Return the answers by budget as a DataFrame, markdown or LaTeX."""
        budgets = decades(self.scope) if budgets is None else budgets
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return chinchilla_table([self.allocate(c) for c in budgets], format=format)
