"""In what precision a model multiplies: weights, optimizer and losses stay in float32."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Literal, get_args

import torch
from torch import nn

from ..errors import RecipeError

Precision = Literal["fp32", "bf16"]


def check_precision(precision: object) -> None:
    """Raise `RecipeError` unless it is one there is."""
    if precision not in get_args(Precision):
        raise RecipeError(
            f'precision is {precision!r}. Choose "fp32" or "bf16"; fp16 would need its gradients '
            "scaled, which changes the step."
        )


def multiplying_in(precision: Precision, model: nn.Module) -> AbstractContextManager[object]:
    """Have what is called inside multiply in this precision, on the model's device.

    "bf16" is torch's autocast: matrix products in bfloat16. What else is depends on the device: on
    a GPU norms and softmax are in float32.
    """
    where = next((p.device.type for p in model.parameters()), "cpu")
    if precision == "fp32" or where == "meta":  # there only shapes are computed
        return contextlib.nullcontext()
    return torch.autocast(where, torch.bfloat16)
