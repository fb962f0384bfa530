"""Counting one model: N under every convention, and FLOP per token as torch executes them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import RecipeError, ScalingWarning, cause
from ..flops import ParamCounts
from .batches import Batch, move

LossOfBatch = Callable[[nn.Module, Batch], Tensor]
FlopChoice = str | Callable[[nn.Module, Batch], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """One size of the model, counted.

    Attributes
    ----------
    value : int or float
        What the size argument was.
    counts : ParamCounts, parameters
    flops_per_token : float, FLOP per token
        Forward and backward, as the recipe's ``flops`` choice counts it.
    uncounted : int, parameters
        In matrices outside the layers that the convention "matmul" knows, embeddings aside.
    """

    value: int | float
    counts: ParamCounts
    flops_per_token: float
    uncounted: int = 0


def count_params(model: nn.Module) -> ParamCounts:
    """Count N under every convention; a model's own ``num_params()`` decides the total.

    Raises
    ------
    RecipeError
        Nothing is trainable, or ``num_params()`` is not a positive int.
    """
    trainable = {id(p): p.numel() for p in model.parameters() if p.requires_grad}
    if not trainable:
        raise RecipeError(
            f"{type(model).__name__} has no trainable parameters. Register layers as attributes "
            "(nn.ModuleList for lists), and leave requires_grad on."
        )
    total = _own_count(model) or sum(trainable.values())
    embedding = _numel(model, (nn.Embedding, nn.EmbeddingBag))
    matmul = _numel(model, _MATMUL_LAYERS, weights_only=True)
    return ParamCounts(
        total=total,
        non_embedding=max(1, sum(trainable.values()) - embedding),
        matmul=matmul or total,
    )


def uncounted_params(model: nn.Module) -> int:
    """Return the parameters in matrices that are in no layer known to multiply, or to look up."""
    known = (*_MATMUL_LAYERS, nn.Embedding, nn.EmbeddingBag)
    found = {
        id(p)
        for module in model.modules()
        if isinstance(module, known)
        for p in module.parameters(recurse=False)
    }
    return sum(
        p.numel()
        for p in model.parameters()
        if p.requires_grad and p.ndim >= 2 and id(p) not in found
    )


_MATMUL_LAYERS = (
    nn.Linear,
    nn.Bilinear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.MultiheadAttention,
    nn.RNNBase,
)


def _numel(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], *, weights_only: bool = False
) -> int:
    found = {
        id(p): p.numel()
        for module in model.modules()
        if isinstance(module, kinds)
        for p in module.parameters(recurse=False)
        if p.requires_grad and (p.ndim >= 2 or not weights_only)
    }
    return sum(found.values())


def _own_count(model: nn.Module) -> int | None:
    own = getattr(model, "num_params", None)
    if own is None:
        return None
    try:
        count = own() if callable(own) else own
    except Exception as error:
        raise RecipeError(
            f"{type(model).__name__}.num_params() failed: {cause(error)}. It is "
            "called without arguments and must return a positive int; without the method, "
            "parameters are counted."
        ) from error
    if isinstance(count, bool) or not isinstance(count, int) or count <= 0:
        raise RecipeError(
            f"{type(model).__name__}.num_params() returned {count!r}. It must return a positive "
            "int; without the method, parameters are counted."
        )
    return count


def count_flops(
    build: Callable[[], nn.Module],
    batch: Batch,
    tokens: int,
    loss_of_batch: LossOfBatch,
    choice: FlopChoice,
    *,
    told: set[str] | None = None,
) -> tuple[ParamCounts, float, int]:
    """Count one size: (N under every convention, FLOP per token, parameters left uncounted).

    FLOP are those of forward and backward; uncounted are matrices of :func:`uncounted_params`.

    Counted on the ``meta`` device, where nothing is computed and every attention kernel is
    decomposed into the products that the counter knows; on the CPU it misses them.

    Parameters
    ----------
    build : function that returns the model
    batch : one batch of `tokens` tokens
    choice : "counted", "6ND", or a function (model, batch) -> FLOP per token
    told : set of str, optional
        Kinds of error that were warned of for another size; the kind of this one is added.
    """
    model = None
    try:
        with torch.device("meta"):
            model = build()
        counts, unknown = count_params(model), uncounted_params(model)
        if choice == "counted":
            return counts, _counted_on_meta(model, batch, loss_of_batch) / tokens, unknown
    except RecipeError:
        raise
    except Exception as error:
        kind = type(error).__name__
        if choice == "counted" and (told is None or kind not in told):
            if told is not None:
                told.add(kind)
            warnings.warn(
                f"FLOP cannot be counted ({cause(error)}), so 6·N per token is "
                "used. Count them yourself with flops=lambda model, batch: flop_per_token.",
                ScalingWarning,
                stacklevel=2,
            )
        model = build()
        counts, unknown = count_params(model), uncounted_params(model)
    if callable(choice):
        per_token = float(choice(model if not _is_meta(model) else build(), batch))
        if not 0 < per_token < float("inf"):
            raise RecipeError(
                f"flops(model, batch) returned {per_token}. Return FLOP per token, > 0."
            )
        return counts, per_token, unknown
    return counts, 6.0 * counts.total, unknown


def _counted_on_meta(model: nn.Module, batch: Batch, loss_of_batch: LossOfBatch) -> float:
    batch = move(batch, torch.device("meta"))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        loss_of_batch(model, batch).backward()  # type: ignore[no-untyped-call]
    flops = float(counter.get_total_flops())
    if flops <= 0:
        raise ValueError("no matrix product was seen in a training step")
    return flops


def _is_meta(model: nn.Module) -> bool:
    return next(model.parameters()).is_meta


def describe_tensor(value: Any) -> str:
    """Return ``Tensor(8, 64) int64`` for a tensor, the type's name for anything else."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"Tensor{tuple(value.shape)} {dtype}"
    return type(value).__name__
