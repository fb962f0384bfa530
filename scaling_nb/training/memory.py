"""Memory of a training run: foreseen before it starts, recognised when it runs out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .batches import Batch, move, n_samples
from .generators import seeded_globals

MOMENTS = 4
"""Copies of the weights in training: weights, gradients and AdamW's two moments."""

MEMORY_MARGIN = 1.5
"""What a run may take, over its counted bytes: temporaries of the backward pass, and pages that
the allocator keeps (1.3 to 1.7 on a CPU, for GPTs from 256 to 512 wide)."""

_MESSAGES = ("can't allocate memory", "out of memory", "not enough memory")


class Sized(Protocol):
    """What a forecast asks of a recipe."""

    def build(self, value: int | float) -> nn.Module: ...
    def loss(self, model: nn.Module, batch: Batch) -> Tensor: ...
    def sample_batch(self) -> Batch: ...


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or a GPU."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(m in str(error) for m in _MESSAGES)


def run_bytes(recipe: Sized, value: int | float) -> int:
    """Return the bytes a run of one size adds: 4 · weights + saved activations.

    Counted on the ``meta`` device, where nothing is computed. A model that cannot run there is
    judged by its weights alone, three times over.
    """
    with seeded_globals(0):
        batch = recipe.sample_batch()
        try:
            with torch.device("meta"):
                model = recipe.build(value)
            weights = _weight_bytes(model)
            return MOMENTS * weights + _activation_bytes(recipe, model, batch)
        except Exception:
            return 3 * MOMENTS * _weight_bytes(recipe.build(value))


def _weight_bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _activation_bytes(recipe: Sized, model: nn.Module, batch: Batch) -> int:
    """Bytes that autograd keeps between the forward and the backward pass."""
    weights = {id(p) for p in model.parameters()}
    kept: dict[int, tuple[Tensor, int]] = {}

    def note(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights:
            storage = tensor.untyped_storage()
            # The tensor is held, or another could come to lie under the same identity.
            kept[storage._cdata] = (tensor, storage.nbytes())
        return tensor

    batch = move(batch, torch.device("meta"))
    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        recipe.loss(model, batch)
    return sum(size for _, size in kept.values())


def split(batch: Batch, parts: int) -> list[Batch]:
    """Return a batch in at most `parts` pieces along the batch axis, samples in order."""
    n = n_samples(batch)
    size = math.ceil(n / parts)
    return [_rows(batch, n, slice(i, i + size)) for i in range(0, n, size)]


def _rows(value: Any, n: int, rows: slice) -> Any:
    if isinstance(value, Tensor):
        return value[rows] if value.ndim and len(value) == n else value
    if isinstance(value, Mapping):
        return {key: _rows(item, n, rows) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_rows(item, n, rows) for item in value))
    if isinstance(value, tuple | list):
        if len(value) == n and not any(isinstance(item, Tensor) for item in value):
            return value[rows]
        return type(value)(_rows(item, n, rows) for item in value)
    return value
