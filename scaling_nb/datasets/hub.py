"""Data of the HuggingFace hub, by its ``datasets`` library (extra ``data``), or from its files.

===============  =========================================================================
`tinystories`    2.1 M short stories in simple English, 1.9 GB of text (streamed: only what
                 you ask for is read), CDLA-Sharing-1.0; the authors' train and validation
`cifar10`        50,000 + 10,000 colour images of 32 × 32, 10 classes, 170 MB, licence not
                 stated by the authors; their train and test
===============  =========================================================================

Each takes ``path=``, a folder with the hub's parquet files, and then reads those.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .files import tokenise
from .images import ImageData, image_data
from .tokens import TextData

_END_OF_STORY = b"\n\n"
_ADVICE = {
    "roneneldan/TinyStories": "give path=, a folder with its parquet files, or use stdlib_text(), "
    "real text that is on every machine.",
    "uoft-cs/cifar10": "give path=, a folder with its parquet files, or use patterns(), images "
    "that are made here.",
    "zalando-datasets/fashion_mnist": "give path=, the folder of its four IDX files, or install "
    "them: apt install dataset-fashion-mnist. Or use patterns(), images that are made here.",
}


def tinystories(
    max_bytes: int = 20_000_000,
    *,
    vocab_size: int = 256,
    path: str | os.PathLike[str] | None = None,
) -> TextData:
    """Read TinyStories as tokens: bytes, or byte pairs trained on the training part.

    CDLA-Sharing-1.0; the authors' own training and validation parts.

    Parameters
    ----------
    max_bytes : int, bytes
        Training text to read; held-out text is at most a twentieth of it.
    vocab_size : int, symbols
        256: bytes. More: byte pairs.
    path : folder, optional
        With ``train*.parquet`` and ``validation*.parquet``, column ``text``.

    Raises
    ------
    DataError
        Without ``datasets``, without network, or where the files are not of this form.
    """
    parts = [
        _stories(_rows("roneneldan/TinyStories", split, path, streaming=True), limit)
        for split, limit in (("train", max_bytes), ("validation", max(1, max_bytes // 20)))
    ]
    return tokenise(
        *parts,
        vocab_size=vocab_size,
        name="tinystories",
        licence="CDLA-Sharing-1.0",
        source="roneneldan/TinyStories (Eldan & Li 2023)",
    )


def cifar10(path: str | os.PathLike[str] | None = None) -> ImageData:
    """Read CIFAR-10; its authors state no licence, and its test part is held out.

    Parameters
    ----------
    path : folder, optional
        With ``train*.parquet`` and ``test*.parquet``, columns ``img`` and ``label``.

    Raises
    ------
    DataError
        Without ``datasets`` or Pillow, without network, or where the files are not of this form.
    """
    train, test = (
        _labelled(_rows("uoft-cs/cifar10", split, path), "img", "label")
        for split in ("train", "test")
    )
    return image_data("cifar-10", "not stated", "uoft-cs/cifar10 (Krizhevsky 2009)", train, test)


def fashion_mnist_from_hub(path: str | os.PathLike[str] | None = None) -> ImageData:
    """Read Fashion-MNIST from the hub, or from its parquet files in `path`."""
    train, test = (
        _labelled(_rows("zalando-datasets/fashion_mnist", split, path), "image", "label")
        for split in ("train", "test")
    )
    return image_data("fashion-mnist", "MIT", "zalando-datasets/fashion_mnist", train, test)


def _rows(
    name: str, split: str, path: str | os.PathLike[str] | None, *, streaming: bool = False
) -> Iterable[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{name} is read by HuggingFace datasets, which is not installed: "
            f"pip install 'scaling_nb[data]'. Without it, {_ADVICE[name]}"
        ) from error
    try:
        if path is not None:
            files = sorted(map(str, Path(path).glob(f"{split}*.parquet")))
            if not files:
                raise DataError(
                    f"{path} has no {split}*.parquet. Give the folder of {name}'s parquet files."
                )
            rows = datasets.load_dataset(
                "parquet", data_files={split: files}, split=split, streaming=streaming
            )
        else:
            rows = datasets.load_dataset(name, split=split, streaming=streaming)
        first = next(iter(rows), None)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{name} could not be loaded ({type(error).__name__}: {_first_line(error)}). Without "
            f"network, {_ADVICE[name]}"
        ) from error
    if first is None:
        raise DataError(f"{name} has no rows in {split}. Check the files.")
    found: Iterable[Mapping[str, Any]] = rows
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


def _column(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[Any]:
    for row in rows:
        if name not in row:
            raise DataError(
                f"a row has the columns {', '.join(map(repr, row))}, but no {name!r}. "
                "Give files of the hub's own form."
            )
        yield row[name]


def _stories(rows: Iterable[Mapping[str, Any]], limit: int) -> NDArray[np.uint8]:
    texts: list[bytes] = []
    size = 0
    for text in _column(rows, "text"):
        texts.append(text.strip().encode() + _END_OF_STORY)
        size += len(texts[-1])
        if size >= limit:
            break
    return np.frombuffer(b"".join(texts), dtype=np.uint8)[:limit]


def _labelled(rows: Any, image: str, label: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        from datasets import Image
        from PIL import Image as _  # noqa: F401  datasets decodes images with Pillow
    except ImportError as error:
        raise DataError(
            "images of the hub are decoded by Pillow, which is not installed: "
            "pip install 'scaling_nb[data]'."
        ) from error
    for name in (image, label):
        next(_column(itertools.islice(rows, 1), name))
    rows = rows.cast_column(image, Image())
    pixels = np.stack([np.asarray(picture) for picture in _column(rows, image)])
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    return pixels.transpose(0, 3, 1, 2), np.array(list(_column(rows, label)), dtype=np.int64)
