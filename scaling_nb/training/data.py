"""From whatever data a person has to a training source and fixed held-out batches.

The held-out split, where no ``eval_dataset`` is given, is deterministic:

=====================  ======================================================================
token array            the last 5% of the array (contiguous), at most `eval_tokens` tokens of it
map-style ``Dataset``  5% of the samples, drawn once with a fixed seed
``DataLoader``         over a map-style ``Dataset``: as above, its other settings kept
stream                 the first batches, `eval_tokens` tokens of them, put aside for good
=====================  ======================================================================

Every run of a sweep is evaluated on the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
)

from ..errors import DataError
from .batches import (
    Batch,
    BatchSource,
    IndexedBatches,
    StreamBatches,
    TokenWindows,
    infer_tokens_per_sample,
    n_samples,
)
from .data_hash import HASHED_ROWS, content_of, hash_arrays, hash_batches
from .fingerprint import describe
from .generators import host_generators, seeded_globals
from .loaders import (
    HELD_OUT,
    KEPT,
    SPLIT_SEED,
    affordable,
    is_reshapable,
    order_of,
    refuse_changing,
    refuse_shuffled,
)
from .samples import batches_of, one_batch, read, too_few, warn_of_few

DEFAULT_CONTEXT = 128
_CONTEXT_NAMES = ("context", "context_length", "block_size", "seq_len", "max_seq_len", "n_ctx")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedData:
    """Training source, held-out batches, and what identifies the data.

    Attributes
    ----------
    source : BatchSource
    eval_batches : tuple of batches
        On the CPU; the same for every run.
    tokens_per_sample : int, tokens
    is_tokens : bool
        Whether the data is an array of token ids (next-token prediction).
    fingerprint : str
        Hash of content where the content can be read, of samples of it where it is large.
    """

    source: BatchSource
    eval_batches: tuple[Batch, ...] = field(repr=False)
    tokens_per_sample: int
    is_tokens: bool
    fingerprint: str

    @property
    def eval_tokens(self) -> int:
        """Held-out tokens that each run is evaluated on."""
        return sum(n_samples(batch) for batch in self.eval_batches) * self.tokens_per_sample


def prepare_data(
    dataset: Any,
    *,
    eval_dataset: Any = None,
    batch_size: int,
    tokens_per_sample: int | None = None,
    eval_tokens: int,
    model_kwargs: Mapping[str, Any],
) -> PreparedData:
    """Make batches of any supported data.

    Parameters
    ----------
    dataset, eval_dataset : 1-D token array, Dataset, IterableDataset or DataLoader
    batch_size : int, samples
    tokens_per_sample : int, optional
        Context length of a token array; inferred otherwise.
    eval_tokens : int, tokens
        Upper bound of what one evaluation reads.

    Raises
    ------
    DataError
        Unsupported, empty, too short, or a HuggingFace data set without torch format.
    """
    for name, data in (("dataset", dataset), ("eval_dataset", eval_dataset)):
        _check_supported(name, data)
    if (tokens := as_token_array(dataset)) is not None:
        context = tokens_per_sample or _context_of(model_kwargs)
        held_out = as_token_array(eval_dataset)
        if held_out is None and eval_dataset is not None:
            raise DataError(
                f"dataset is an array of token ids, but eval_dataset is a "
                f"{type(eval_dataset).__name__}. Give held-out token ids as an array too."
            )
        return _prepare_tokens(tokens, held_out, batch_size, context, eval_tokens)
    if isinstance(dataset, IterableDataset | DataLoader) and not is_reshapable(dataset):
        return _prepare_stream(dataset, eval_dataset, batch_size, tokens_per_sample, eval_tokens)
    # Seeded: a data set may draw (augmentation), and the held-out batches must be the same.
    with seeded_globals(SPLIT_SEED):
        return _prepare_indexed(dataset, eval_dataset, batch_size, tokens_per_sample, eval_tokens)


def as_token_array(data: Any) -> NDArray[np.integer] | None:
    """Return `data` as a 1-D integer array (no copy of a memmap), or None if it is not one."""
    if isinstance(data, Tensor):
        data = data.detach().cpu().numpy()
    numbers = isinstance(data, list | tuple) and data and isinstance(data[0], int | np.integer)
    if numbers or isinstance(data, range) or type(data).__module__.startswith("pandas"):
        data = np.asarray(data)
    if isinstance(data, bytes):
        data = np.frombuffer(data, dtype=np.uint8)
    if not isinstance(data, np.ndarray):
        return None
    if data.ndim != 1 or not np.issubdtype(data.dtype, np.integer):
        raise DataError(
            f"an array of shape {data.shape} and dtype {data.dtype} is not a sequence of token "
            "ids. Give a 1-D integer array (.flatten() it), or a Dataset that yields (inputs, "
            "targets), such as torch.utils.data.TensorDataset(X, Y)."
        )
    return data


def _prepare_tokens(
    tokens: NDArray[np.integer],
    held_out: NDArray[np.integer] | None,
    batch_size: int,
    context: int,
    eval_tokens: int,
) -> PreparedData:
    if held_out is None:
        tail = max(context + 1, int(HELD_OUT * len(tokens)))
        tokens, held_out = tokens[:-tail], tokens[-tail:]
    source = TokenWindows(tokens=tokens, context=context, batch_size=batch_size)
    if source.n_windows < batch_size:
        need = batch_size * context + 1
        raise DataError(
            f"{len(tokens):,} training tokens do not fill one batch of {batch_size} × {context} "
            f"tokens ({need:,} needed). Give more data, or a smaller batch_size or "
            "tokens_per_sample (the context length)."
        )
    windows = TokenWindows(tokens=held_out, context=context, batch_size=batch_size)
    if windows.n_windows < 1:
        raise DataError(
            f"eval_dataset has {len(held_out)} tokens, fewer than one window of {context} + 1."
        )
    n = min(windows.n_windows, max(1, eval_tokens // context))
    rows = np.linspace(0, windows.n_windows - 1, n).astype(int)
    # Larger batches than in training: no gradients are kept, and fewer calls are faster.
    gathered = torch.split(windows.gather(rows), max(batch_size, 2**13 // context))
    return PreparedData(
        source=source,
        eval_batches=tuple((w[:, :-1], w[:, 1:]) for w in gathered),
        tokens_per_sample=context,
        is_tokens=True,
        fingerprint=hash_arrays(tokens, held_out),
    )


def _prepare_indexed(
    dataset: Any,
    eval_dataset: Any,
    batch_size: int,
    tokens_per_sample: int | None,
    eval_tokens: int,
) -> PreparedData:
    shuffle, collate, workers = True, None, 0
    options: dict[str, Any] = {}
    if isinstance(dataset, DataLoader):
        shuffle = isinstance(dataset.sampler, RandomSampler)
        collate, workers = dataset.collate_fn, dataset.num_workers
        batch_size = dataset.batch_size or batch_size
        options = {name: value for name in KEPT if (value := getattr(dataset, name)) is not None}
        dataset = dataset.dataset
    n = len(dataset)
    order = np.arange(n)
    if eval_dataset is None:
        order = np.random.default_rng(SPLIT_SEED).permutation(n)
        cut = max(1, int(HELD_OUT * n))
        eval_rows, order = order[:cut], np.sort(order[cut:])
    if len(order) < batch_size:
        raise too_few(n, n - len(order), batch_size)
    spread = order[np.linspace(0, len(order) - 1, min(len(order), HASHED_ROWS)).astype(int)]
    before = host_generators()
    sample = one_batch(dataset, spread, collate, name="dataset")
    draws = not torch.equal(before, host_generators())
    per_sample = tokens_per_sample or infer_tokens_per_sample(sample)
    n_eval = max(1, eval_tokens // per_sample)
    if eval_dataset is None:
        held_out = batches_of(dataset, eval_rows[:n_eval], batch_size, collate, name="dataset")
        warn_of_few(n, len(eval_rows), per_sample)
    else:
        held_out = _eval_batches(eval_dataset, batch_size, collate, n_eval)
    return PreparedData(
        source=IndexedBatches(
            dataset=dataset,
            indices=order,
            batch_size=batch_size,
            tokens_per_sample=per_sample,
            collate_fn=collate,
            num_workers=workers,
            shuffle=shuffle,
            draws=draws,
            loader_options=options,
        ),
        eval_batches=held_out,
        tokens_per_sample=per_sample,
        is_tokens=False,
        fingerprint=hash_batches(
            [
                type(dataset).__name__,
                n,
                shuffle,
                batch_size,
                describe(collate),
                content_of(dataset),
            ],
            [sample, *held_out],
        ),
    )


def _prepare_stream(
    dataset: Any,
    eval_dataset: Any,
    batch_size: int,
    tokens_per_sample: int | None,
    eval_tokens: int,
) -> PreparedData:
    loader = dataset
    if not isinstance(dataset, DataLoader):
        loader = DataLoader(dataset, batch_size=batch_size, drop_last=True)
    with seeded_globals(SPLIT_SEED):
        batches = iter(loader)
        first = read(batches, name="dataset", n=1)
        # From the second on: the first one has the loader draw its own order, too.
        before = host_generators()
        read(batches, name="dataset", n=1)
        draws = not torch.equal(before, host_generators())
        if not first:
            raise DataError("the data set yields no batch. Give data, or a smaller batch_size.")
        per_sample = tokens_per_sample or infer_tokens_per_sample(first[0])
        tokens_per_step = n_samples(first[0]) * per_sample
        n_eval = max(1, eval_tokens // tokens_per_step)
        if eval_dataset is not None:
            put_aside = 0
            held_out = _eval_batches(eval_dataset, batch_size, None, eval_tokens // per_sample)
        else:
            refuse_shuffled(loader)
            n_eval = affordable(loader, n_eval)
            held_out = tuple(read(iter(loader), name="dataset", n=n_eval))
            put_aside = len(held_out)
    if eval_dataset is None:
        refuse_changing(loader, held_out)
    length = len(loader) - put_aside if isinstance(loader.dataset, Sized) else None
    return PreparedData(
        source=StreamBatches(
            loader=loader,
            put_aside=put_aside,
            tokens_per_step=tokens_per_step,
            unique_tokens=None if length is None else length * tokens_per_step,
            draws=draws,
        ),
        eval_batches=held_out,
        tokens_per_sample=per_sample,
        is_tokens=False,
        fingerprint=hash_batches(
            [type(loader.dataset).__name__, length, *order_of(loader)], [*first, *held_out]
        ),
    )


def _eval_batches(
    data: Any, batch_size: int, collate: Callable[..., Any] | None, n_samples_wanted: int
) -> tuple[Batch, ...]:
    if isinstance(data, IterableDataset | DataLoader):
        loader = data if isinstance(data, DataLoader) else DataLoader(data, batch_size=batch_size)
        batches, seen, stream = [], 0, iter(loader)
        while seen < max(n_samples_wanted, 1) and (found := read(stream, name="eval_dataset", n=1)):
            batches += found
            seen += n_samples(found[0])
        if not batches:
            raise DataError("eval_dataset yields no batch. Give at least one.")
        return tuple(batches)
    if len(data) == 0:
        raise DataError("eval_dataset is empty. Give at least one sample.")
    rows = np.linspace(0, len(data) - 1, min(len(data), max(1, n_samples_wanted))).astype(int)
    return batches_of(data, rows, batch_size, collate, name="eval_dataset")


def _context_of(model_kwargs: Mapping[str, Any]) -> int:
    for name in _CONTEXT_NAMES:
        if isinstance(value := model_kwargs.get(name), int) and value > 0:
            return value
    return DEFAULT_CONTEXT


def _check_supported(name: str, data: Any) -> None:
    if data is None and name == "eval_dataset":
        return
    if data is None:
        raise DataError("dataset is missing. Give token ids, a Dataset or a DataLoader.")
    if isinstance(data, Mapping):
        splits = ", ".join(map(repr, list(data)[:4]))
        raise DataError(f"{name} is a {type(data).__name__} of {splits}. Give one of its parts.")
    if isinstance(data, DataLoader):
        _check_supported(f"{name}.dataset", data.dataset)
        return
    if isinstance(data, list | tuple) and data and all(isinstance(x, Tensor) for x in data):
        raise DataError(
            f"{name} is a {type(data).__name__} of {len(data)} tensors. Give "
            "torch.utils.data.TensorDataset(X, Y), which yields (inputs, targets)."
        )
    if type(data).__module__.split(".")[0] == "datasets" and _format_of(data) != "torch":
        raise DataError(
            f"{name} is a HuggingFace data set whose format is not torch: its samples are lists. "
            f'Give {name}.with_format("torch").'
        )
    if isinstance(data, Tensor | np.ndarray | IterableDataset | list | tuple | range | bytes):
        return
    if isinstance(data, str) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise DataError(
            f"{name} is a {type(data).__name__}. It must be a 1-D array of token ids, a Dataset "
            "(__getitem__ and __len__), an IterableDataset or a DataLoader."
        )
    if isinstance(data, Sized) and len(data) == 0:
        raise DataError(f"{name} is empty. Give at least one batch of samples.")


def _format_of(data: Any) -> str | None:
    """Return the format of a HuggingFace data set, one that streams included."""
    if hasattr(data, "format"):
        found: str | None = data.format.get("type")
        return found
    return getattr(getattr(data, "_formatting", None), "format_type", None)
