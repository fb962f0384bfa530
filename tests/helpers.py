"""Models that several tests train."""

from __future__ import annotations

import warnings

import torch
from torch import nn


class TinyLM(nn.Module):
    """Predicts the next token from the present one through a hidden layer."""

    def __init__(self, width: int, *, vocab_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(torch.tanh(self.hidden(self.embedding(tokens)))))


class Regressor(nn.Module):
    """A small MLP from 4 features to 1."""

    def __init__(self, width: int, n_in: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def tiny_plan(recipe, budgets=(1e6, 2e6, 4e6), **options):
    """Return a plan of about 9 runs of 30 to 400 steps."""
    from scaling_nb import ScalingWarning, plan_sweep

    settings = {"min_steps": 10, "tokens_per_param": (0.1, 1e6), "max_epochs": 10.0, **options}
    with warnings.catch_warnings():
        # Few sizes and repeated data are what makes these plans quick.
        warnings.simplefilter("ignore", ScalingWarning)
        return plan_sweep(recipe, list(budgets), **settings)
