"""What may be done with a person's DataLoader or stream, and what must be left as it is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from ..errors import DataError
from .batches import Batch, tensors_of
from .fingerprint import describe
from .generators import seeded_globals

HELD_OUT = 0.05
"""Share of the data that is held out where no ``eval_dataset`` is given."""

SPLIT_SEED = 0

KEPT = ("worker_init_fn", "timeout", "multiprocessing_context", "prefetch_factor")
"""Settings of a person's DataLoader that loaders over a part of its data set have too."""


def is_reshapable(dataset: Any) -> bool:
    """Whether a DataLoader's batches can be made anew over a part of its data set.

    Only where it orders every sample once, in torch's own ways: a subclass may do anything.
    """
    if type(dataset) is not DataLoader or isinstance(dataset.dataset, IterableDataset):
        return False
    sampler: Any = dataset.sampler
    source: Any = dataset.dataset
    return (
        type(sampler) in (RandomSampler, SequentialSampler)
        and not getattr(sampler, "replacement", False)
        and len(sampler) == len(source)
        and type(dataset.batch_sampler) is BatchSampler
    )


def order_of(loader: DataLoader[Any]) -> list[Any]:
    """Return what decides the order and the form of a loader's batches, JSON-ready."""
    parts = (loader.sampler, loader.batch_sampler)
    plain = [
        [describe(type(part)), {k: _brief(v) for k, v in getattr(part, "__dict__", {}).items()}]
        for part in parts
    ]
    return [plain, loader.batch_size, describe(loader.collate_fn), describe(loader.worker_init_fn)]


def _brief(value: Any) -> Any:
    """Describe a sampler's setting; the data set it refers to is described elsewhere."""
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple | range | np.ndarray | Tensor):
        return describe(np.asarray(value)) if len(value) and not hasattr(value[0], "__len__") else 0
    return type(value).__name__


def refuse_changing(loader: DataLoader[Any], held_out: tuple[Batch, ...]) -> None:
    """Refuse a stream whose first batches are others every time: they would be trained on.

    Samples may be augmented: it is enough that one part of them, such as the targets, comes again.
    """
    with seeded_globals(SPLIT_SEED + 1):
        again = tuple(itertools.islice(iter(loader), len(held_out)))
    if len(again) < len(held_out):
        return  # it cannot be read twice, which training finds out and says
    pairs = [
        [torch.cat([t.flatten() for t in part]) for part in zip(*map(tensors_of, b), strict=True)]
        for b in (held_out, again)
    ]
    same = [torch.equal(one, other) for one, other in zip(*pairs, strict=True)]
    telling = [bool((one != one[0]).any()) for one in pairs[0] if len(one)]
    if not all(same) and not any(s and t for s, t in zip(same, telling, strict=True)):
        raise DataError(
            "the stream begins with other samples every time it is read, so its first batches "
            "cannot be held out: it shuffles itself. Give eval_dataset=, or a stream whose order "
            "is the same in every pass."
        )


def affordable(loader: DataLoader[Any], n_eval: int) -> int:
    """Hold out no more than 5% of a loader that knows its length."""
    if isinstance(loader.dataset, Sized):
        return max(1, min(n_eval, math.floor(HELD_OUT * len(loader))))
    return n_eval


def refuse_shuffled(loader: DataLoader[Any]) -> None:
    """Refuse to hold out of a loader whose order is its own; raise `DataError`."""
    if isinstance(loader.dataset, IterableDataset):
        return
    shuffles = not isinstance(loader.sampler, SequentialSampler)
    if shuffles or type(loader.batch_sampler) is not BatchSampler:
        own = loader.sampler if shuffles else loader.batch_sampler
        raise DataError(
            f"nothing can be held out of a DataLoader with its own sampler "
            f"({type(own).__name__}): its first batches may differ from pass to pass. "
            "Give eval_dataset=."
        )
