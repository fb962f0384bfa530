"""Endless, deterministic batches from whatever data a person has.

Every source yields the same batches for the same seed, whichever thread or process asks, and can
start at any batch: that is what makes runs repeatable, branches exact and resumption possible.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate, get_worker_info

from ..errors import DataError
from .generators import OwnGenerators, seed_globals, seeded_globals

Batch = Any
"""``(inputs, targets)``, or whatever the user's ``step_fn`` takes."""


class BatchSource(Protocol):
    """Where training batches come from.

    Attributes
    ----------
    tokens_per_step : int, tokens
        Tokens in one whole batch.
    unique_tokens : int or None, tokens
        Tokens before data is repeated; None where it cannot be known.
    """

    @property
    def tokens_per_step(self) -> int: ...
    @property
    def unique_tokens(self) -> int | None: ...
    def batches(self, seed: int, start: int = 0) -> Iterator[Batch]:
        """Yield batches `start`, `start` + 1, … of the endless order that `seed` decides."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWindows:
    """Next-token prediction over a 1-D array of ids: the fast path, no DataLoader.

    The array is cut into windows of `context` tokens; each epoch visits every window once, in an
    order drawn from (seed, epoch). Inputs and targets are one token apart, shape (batch, context).
    """

    tokens: NDArray[np.integer]
    context: int
    batch_size: int

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.context

    @property
    def n_windows(self) -> int:
        return (len(self.tokens) - 1) // self.context

    @property
    def unique_tokens(self) -> int:
        return self.n_windows * self.context

    def batches(self, seed: int, start: int = 0) -> Iterator[Batch]:
        """Yield ``(inputs, targets)``, both int64 of shape (batch, context)."""
        per_epoch = self.n_windows // self.batch_size
        # Gathering many batches in one indexing call costs a tenth of one call a batch.
        chunk = max(1, min(64, 2**18 // self.tokens_per_step))
        for epoch in itertools.count(start // per_epoch):
            order = np.random.default_rng([seed, epoch]).permutation(self.n_windows)
            first = start % per_epoch if epoch == start // per_epoch else 0
            for i in range(first, per_epoch, chunk):
                rows = order[i * self.batch_size : min(i + chunk, per_epoch) * self.batch_size]
                windows = self.gather(rows)
                for batch in torch.split(windows, self.batch_size):
                    yield batch[:, :-1], batch[:, 1:]

    def gather(self, rows: NDArray[np.integer]) -> Tensor:
        """Return windows as int64, shape (n_rows, context + 1)."""
        index = rows[:, None] * self.context + np.arange(self.context + 1)
        return torch.from_numpy(self.tokens[index].astype(np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedBatches:
    """A map-style ``Dataset``; each epoch's order is drawn from (seed, epoch), rests dropped.

    Where its samples are drawn (augmentation, masking), each batch is drawn from (seed, epoch,
    its place), whatever was drawn before and whichever process fetches it.
    """

    dataset: Dataset[Any]
    indices: NDArray[np.integer]
    batch_size: int
    tokens_per_sample: int
    collate_fn: Any = None
    num_workers: int = 0
    shuffle: bool = True
    draws: bool = False
    loader_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.tokens_per_sample

    @property
    def unique_tokens(self) -> int:
        return len(self.indices) * self.tokens_per_sample

    def batches(self, seed: int, start: int = 0) -> Iterator[Batch]:
        per_epoch = len(self.indices) // self.batch_size
        seeds_batches = self.draws or self.num_workers > 0
        for epoch in itertools.count(start // per_epoch):
            rng = np.random.default_rng([seed, epoch])
            order = rng.permutation(self.indices) if self.shuffle else self.indices
            first = start % per_epoch if epoch == start // per_epoch else 0
            rows = order[first * self.batch_size : per_epoch * self.batch_size]
            chosen: Any = rows.reshape(-1, self.batch_size).tolist()
            if seeds_batches:
                chosen = [(_seed_of(seed, epoch, first + i), r) for i, r in enumerate(chosen)]
            # seeded: a DataLoader draws a seed for its workers, user transforms may draw too.
            loader: DataLoader[Any] = DataLoader(
                _Drawn(self.dataset, self.collate_fn) if seeds_batches else self.dataset,
                batch_sampler=chosen,
                collate_fn=_as_it_is if seeds_batches else self.collate_fn,
                num_workers=self.num_workers,
                generator=torch.Generator().manual_seed(int(rng.integers(2**31))),
                **self.loader_options,
            )
            yield from loader


def _seed_of(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _as_it_is(batch: Batch) -> Batch:
    return batch


class _Drawn(Dataset[Any]):
    """Fetches and collates whole batches, each under a seed of its own."""

    def __init__(self, dataset: Any, collate: Any) -> None:
        self._dataset, self._collate = dataset, collate or default_collate

    def __getitems__(self, batch: tuple[int, list[int]]) -> Batch:
        seed, rows = batch
        if get_worker_info() is not None:
            # A process of its own; a lock that was held as it was forked would never open.
            seed_globals(seed)
            return self._fetch(rows)
        with seeded_globals(seed):
            return self._fetch(rows)

    def _fetch(self, rows: list[int]) -> Batch:
        many = getattr(self._dataset, "__getitems__", None)
        return self._collate(many(rows) if many else [self._dataset[row] for row in rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBatches:
    """An ``IterableDataset`` or a ``DataLoader``, in its own order, started again when it ends.

    The first `put_aside` batches of every pass are the held-out ones and are never trained on.
    To start in the middle, the batches before are read and dropped. What a pass draws, it draws
    from (seed, epoch) alone.
    """

    loader: DataLoader[Any]
    put_aside: int
    tokens_per_step: int
    unique_tokens: int | None
    draws: bool = False

    def batches(self, seed: int, start: int = 0) -> Iterator[Batch]:
        endless = self._endless(seed)
        # At once, not when the first batch is asked for: what is dropped may draw, too.
        for _ in range(start):
            next(endless)
        return endless

    def _endless(self, seed: int) -> Iterator[Batch]:
        for epoch in itertools.count():
            got_any = False
            for batch in itertools.islice(self._one_pass(seed, epoch), self.put_aside, None):
                got_any = True
                yield batch
            if not got_any:
                raise DataError(
                    f"the data ended before its first training batch: {self.put_aside} batches "
                    "are held out for evaluation. Give more data, or eval_dataset=."
                )

    def _one_pass(self, seed: int, epoch: int) -> Iterator[Batch]:
        own = OwnGenerators(int(np.random.default_rng([seed, epoch]).integers(2**31)))
        # The loader draws its shuffle from the global generator when the first batch is asked for.
        with own.inside():
            batches = iter(self.loader)
            first = list(itertools.islice(batches, 1))
        yield from first
        if not self.draws:
            yield from batches
            return
        while True:
            with own.inside():
                following = list(itertools.islice(batches, 1))
            if not following:
                return
            yield from following


def tensors_of(batch: Batch) -> Iterator[Tensor]:
    """Yield every tensor of a nested batch, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_of(value)
    elif isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        for part in batch:
            yield from tensors_of(part)


def n_samples(batch: Batch) -> int:
    """Return the number of samples in a batch: the length of its first tensor."""
    tensor = first_tensor(batch)
    if tensor is None or tensor.ndim == 0:
        raise DataError(
            f"a batch is a {type(batch).__name__} without a tensor that has a batch axis. "
            "Yield tensors (or dicts, tuples of them) whose first axis is the batch."
        )
    return int(tensor.shape[0])


def first_tensor(batch: Batch) -> Tensor | None:
    """Return the first tensor found in a nested batch, or None."""
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, Mapping):
        if isinstance(ids := batch.get("input_ids"), Tensor):
            return ids
        batch = list(batch.values())
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        for part in batch:
            if (tensor := first_tensor(part)) is not None:
                return tensor
    return None


def move(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with every tensor on `device`.

    A GPU is fed from pinned memory, asynchronously: a step waits for no copy.
    """
    if isinstance(batch, Tensor):
        if device.type == "cuda" and batch.device.type == "cpu":
            # Rows of a window are no whole block, and torch would send those from a copy of its
            # own that is not pinned, for which the host waits.
            block = torch.contiguous_format
            batch = torch.empty_like(batch, pin_memory=True, memory_format=block).copy_(batch)
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        moved = [move(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch


def infer_tokens_per_sample(batch: Batch) -> int:
    """Return the sequence length for integer sequences, else 1 (a sample is the unit of D)."""
    tensor = first_tensor(batch)
    is_ids = tensor is not None and not tensor.is_floating_point() and tensor.ndim == 2
    return int(tensor.shape[1]) if tensor is not None and is_ids else 1


def is_stream(dataset: object) -> bool:
    """Whether the data has no order of its own that could be shuffled."""
    return isinstance(dataset, IterableDataset)
