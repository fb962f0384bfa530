"""What a run is to be, before it is one: everything that decides its result, and its identity.

Units as everywhere: N in parameters, D in tokens, C in FLOP.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from .flops import Convention, ParamCounts


def content_hash(value: object, *, length: int = 12) -> str:
    """Return the first `length` hex digits of the SHA-256 of `value`'s canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One planned run: everything that decides its result, and where it stands in the plan.

    Attributes
    ----------
    size : int or float
        Value of the model's size argument.
    counts : ParamCounts, parameters
        N under every counting convention.
    convention : str
        Which of them is this plan's N.
    n_tokens : int, tokens
        D: tokens to train on, a whole number of batches.
    tokens_per_step : int, tokens
        Tokens in one optimiser step.
    flops_per_token : float, FLOP per token
        Forward and backward.
    budget : float, FLOP
        The compute budget this run was planned for; ``compute`` is what it will spend.
    seed : int
        Which repeat this is.
    trunk_id : str
        Runs with equal ``trunk_id`` share initialisation and data order, hence their noise.
    unique_tokens : int or None, tokens
        Tokens in the training data; None for a stream without end.
    lr : float or None
        Peak learning rate; None where the user's own optimizer decides.
    schedule : str
        Name of the learning-rate schedule.
    recipe_id : str
        Content hash of model source, arguments, data, loss and optimizer.
    """

    size: int | float
    counts: ParamCounts
    convention: Convention = "total"
    n_tokens: int
    tokens_per_step: int
    flops_per_token: float
    budget: float
    seed: int
    trunk_id: str
    unique_tokens: int | None = None
    lr: float | None = None
    schedule: str = "wsd"
    recipe_id: str = ""

    @property
    def run_id(self) -> str:
        """Content hash of everything that changes the result; never a position in a list."""
        return content_hash(
            [self.recipe_id, self.size, self.seed, self.trunk_id, self.n_tokens]
            + [self.tokens_per_step, self.lr, self.schedule]
        )

    @property
    def n_params(self) -> int:
        """N under the plan's counting convention, parameters."""
        return self.counts.get(self.convention)

    @property
    def n_steps(self) -> int:
        """Optimiser steps."""
        return self.n_tokens // self.tokens_per_step

    @property
    def compute(self) -> float:
        """C = D · FLOP per token, FLOP."""
        return self.n_tokens * self.flops_per_token

    @property
    def tokens_per_param(self) -> float:
        """D / N, tokens per parameter."""
        return self.n_tokens / self.n_params

    @property
    def epochs(self) -> float:
        """Passes over the training data, D / unique tokens; 0 for a stream without end."""
        return self.n_tokens / self.unique_tokens if self.unique_tokens else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what :meth:`to_dict` wrote."""
        return cls(**{**data, "counts": ParamCounts(**data["counts"])})
