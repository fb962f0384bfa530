"""Reading a person's samples and putting them into batches, with what goes wrong in words."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import default_collate

from ..errors import DataError, ScalingError, ScalingWarning, cause
from .batches import Batch

Collate = Callable[..., Any] | None

_FEW_SAMPLES, _FEW_TOKENS = 5, 1000
"""A held-out set that is below both measures little but its own chance."""


def one_batch(
    dataset: Any, rows: Sequence[int] | NDArray[np.integer], collate: Collate, *, name: str
) -> Batch:
    """Return the samples `rows` as one batch.

    Raises
    ------
    DataError
        A sample cannot be read, or they do not go together; the original error is its cause.
    """
    samples = []
    for row in rows:
        try:
            samples.append(dataset[int(row)])
        except ScalingError:
            raise
        except Exception as error:
            raise DataError(
                f"{name}[{row}] failed: {cause(error)}. It must return a sample for every index "
                f"from 0 to {len(dataset) - 1}, such as (inputs, targets)."
            ) from error
    try:
        return (collate or default_collate)(samples)
    except ScalingError:
        raise
    except Exception as error:
        how = "collate_fn failed" if collate not in (None, default_collate) else "no batch"
        raise DataError(
            f"{len(samples)} samples of {name} make no batch ({how}: {cause(error)}). "
            "Samples of a batch must be tensors or numbers of one shape: pad or crop them, or "
            "give a DataLoader whose collate_fn does."
        ) from error


def batches_of(
    dataset: Any, rows: NDArray[np.integer], batch_size: int, collate: Collate, *, name: str
) -> tuple[Batch, ...]:
    """Return the samples `rows` in batches of at most `batch_size`."""
    return tuple(
        one_batch(dataset, rows[k : k + batch_size], collate, name=name)
        for k in range(0, len(rows), batch_size)
    )


def read(batches: Iterator[Batch], *, name: str, n: int) -> list[Batch]:
    """Return the next `n` batches, or as many as there are; raise `DataError` if one fails."""
    found = []
    try:
        for batch in batches:
            found.append(batch)
            if len(found) == n:
                break
    except ScalingError:
        raise
    except Exception as error:
        raise DataError(
            f"batch {len(found)} of {name} cannot be read: {cause(error)}. Samples of a batch must "
            "be tensors or numbers of one shape, such as (inputs, targets); pad or crop them, or "
            "give a DataLoader whose collate_fn does."
        ) from error
    return found


def too_few(n: int, n_held_out: int, batch_size: int) -> DataError:
    """Return the error of a data set that does not fill one training batch."""
    held = (
        f", of which {n_held_out} {'is' if n_held_out == 1 else 'are'} held out: "
        f"{n - n_held_out} training samples are"
        if n_held_out
        else ","
    )
    other = ", or eval_dataset=" if n_held_out else ""
    return DataError(
        f"the data set has {n:,} samples{held} fewer than one batch of {batch_size}. Give more "
        f"data, or a smaller batch_size{other}."
    )


def warn_of_few(n: int, n_held_out: int, tokens_per_sample: int) -> None:
    """Warn where the split leaves next to nothing to measure the loss on."""
    if n_held_out < _FEW_SAMPLES and n_held_out * tokens_per_sample < _FEW_TOKENS:
        few = f"{n_held_out} {'is' if n_held_out == 1 else 'are'}"
        warnings.warn(
            f"of {n:,} samples only {few} held out, and the loss of every run is measured on them "
            "alone: a fit would see mostly their chance. Give more data, or eval_dataset=.",
            ScalingWarning,
            stacklevel=6,
        )
