"""The optimizer of a run: None, a dict of AdamW settings, or the user's own function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..errors import RecipeError

OptimizerChoice = None | Mapping[str, Any] | Callable[[nn.Module], torch.optim.Optimizer]

DEFAULTS: dict[str, Any] = {
    "lr": "auto",
    "betas": (0.9, 0.95),
    "eps": 1e-8,
    "weight_decay": 0.1,
}
"""AdamW's settings where the recipe names none."""


def check_optimizer(choice: OptimizerChoice) -> OptimizerChoice:
    """Return a valid choice, a dict with every setting filled in; raise `RecipeError` otherwise."""
    if choice is None:
        return dict(DEFAULTS)
    if isinstance(choice, Mapping):
        if unknown := set(choice) - set(DEFAULTS):
            raise RecipeError(
                f"optimizer has unknown settings {', '.join(sorted(unknown))}. AdamW takes "
                f"{', '.join(DEFAULTS)}; for anything else give a function model -> Optimizer."
            )
        settings = {**DEFAULTS, **choice}
        _check_lr(settings["lr"])
        return settings
    if isinstance(choice, type | torch.optim.Optimizer):
        raise RecipeError(
            "optimizer must be made for each model anew. Give a function, such as "
            "lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3)."
        )
    if not callable(choice):
        raise RecipeError(
            f"optimizer is a {type(choice).__name__}. Give None, a dict such as {{'lr': 1e-3}}, "
            "or a function model -> Optimizer."
        )
    return choice


def _check_lr(lr: object) -> None:
    if lr == "auto" or callable(lr):
        return
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not 0 < lr < float("inf"):
        raise RecipeError(
            f"lr is {lr!r}. Give a positive number, a function of the number of parameters, "
            'or "auto" for a short range test.'
        )


def build_optimizer(
    choice: OptimizerChoice, model: nn.Module, lr: float | None
) -> torch.optim.Optimizer:
    """Make the optimizer of one model.

    Parameters
    ----------
    choice : as :func:`check_optimizer` returned it
    lr : float or None
        Peak learning rate of this run; None where the user's function decides.
    """
    if callable(choice):
        optimizer = choice(model)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise RecipeError(
                f"optimizer(model) returned a {type(optimizer).__name__}, not a "
                "torch.optim.Optimizer. Return one."
            )
        return optimizer
    settings = {**DEFAULTS, **(choice or {})}
    decay, plain = _split_decay(model)
    groups = [
        {"params": decay, "weight_decay": settings["weight_decay"]},
        {"params": plain, "weight_decay": 0.0},
    ]
    device = next(model.parameters()).device.type
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=lr if lr is not None else 1e-3,
        betas=settings["betas"],
        eps=settings["eps"],
        fused=device in ("cpu", "cuda"),
    )


def _split_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weight decay on matrices; none on norms, biases and embeddings."""
    embeddings = {
        id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for p in model.parameters():
        if p.requires_grad:
            (decay if p.ndim >= 2 and id(p) not in embeddings else plain).append(p)
    return decay, plain
