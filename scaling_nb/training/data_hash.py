"""What identifies data: a hash of its content, of samples of it where it is large."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from .batches import Batch, tensors_of
from .fingerprint import describe

_HASHED_WHOLE = 2**26
HASHED_ROWS = 64


def hash_arrays(*arrays: NDArray[np.integer]) -> str:
    """Return a hash of token arrays; of pages spread over them where they are large."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        if array.nbytes > _HASHED_WHOLE:
            # A memmap of terabytes: 1024 pages spread over it, first and last among them.
            starts = np.linspace(0, len(array) - 4096, 1024).astype(int)
            array = np.concatenate([array[s : s + 4096] for s in starts])
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def hash_batches(settings: list[Any], batches: list[Batch]) -> str:
    """Return a hash of what decides the batches, JSON-ready, and of some of them."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for tensor in tensors_of(batches):
        digest.update(tensor.detach().contiguous().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:12]


def content_of(dataset: Any) -> list[Any]:
    """Return hashes of all of a data set's tensors, where that is quick; else nothing."""
    if type(dataset) is not TensorDataset:
        return []
    if sum(t.numel() * t.element_size() for t in dataset.tensors) > _HASHED_WHOLE:
        return []
    return [describe(tensor) for tensor in dataset.tensors]
