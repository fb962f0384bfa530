"""Maximal-update parametrization (muP) for AdamW: one learning rate for every width.

For a width d against a base width d₀::

    layer      initial std          learning rate
    input      constant             η
    hidden     1 / √fan_in          η · d₀ / d
    output     0                    η · d₀ / d
    norms      ones                 η

so that the size of each layer's *update* does not depend on the width, and a rate tuned at one
width holds at the others. Without it the grid of an IsoFLOP sweep is mistuned at one end, which
moves the minimum.

References
----------
Yang et al. 2022, "Tensor Programs V", table 8. Everett et al. 2024, table 1 (Adam).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn, optim

if TYPE_CHECKING:
    from collections.abc import Iterable


def init_fan_in(layers: Iterable[nn.Linear], *, gain: float = 1.0) -> None:
    """Draw each weight from N(0, gain² / fan_in); biases become zero."""
    for layer in layers:
        nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def mup_adamw(
    *,
    inputs: Iterable[nn.Module],
    hidden: Iterable[nn.Module],
    outputs: Iterable[nn.Module],
    width: int,
    base_width: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.1,
) -> optim.AdamW:
    """Return AdamW with muP's learning rate for each layer.

    Matrices of `hidden` and `outputs` learn at lr · base_width / width and decay; everything of
    `inputs`, and every vector (norms, biases), learns at `lr` and does not decay.

    Parameters
    ----------
    inputs, hidden, outputs : iterables of Module
        The model's layers by role.
    width, base_width : int
        This model's width, and the width at which `lr` was tuned.
    lr : float
        Rate at the base width.
    """
    scaled, plain = _by_role(inputs, [*hidden, *outputs])
    groups: list[dict[str, Any]] = [
        {"params": scaled, "lr": lr * base_width / width, "weight_decay": weight_decay},
        {"params": plain, "lr": lr, "weight_decay": 0.0},
    ]
    return optim.AdamW([g for g in groups if g["params"]], betas=betas, fused=True)


def _by_role(
    inputs: Iterable[nn.Module], matrices: Iterable[nn.Module]
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    scaled: dict[int, nn.Parameter] = {}
    plain: dict[int, nn.Parameter] = {}
    for module in matrices:
        for p in module.parameters():
            (scaled if p.ndim >= 2 else plain).setdefault(id(p), p)
    for module in inputs:
        for p in module.parameters():
            if id(p) not in scaled:
                plain.setdefault(id(p), p)
    return list(scaled.values()), list(plain.values())
