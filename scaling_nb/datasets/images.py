"""Images with class labels: what such a data set is, and two that need no download.

===============  =========================================================================
`fashion_mnist`  60,000 + 10,000 grey images of 28 × 28, 10 classes of clothes, 30 MB, MIT;
                 the authors' own split; Debian and Ubuntu have it as a package
`digits`         1,797 grey images of 8 × 8, 10 digits, inside scikit-learn, CC BY 4.0; one in
                 five is held out. For smoke tests: it is too small for a scaling law
===============  =========================================================================
"""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_FASHION = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("held_out", "images"): "t10k-images-idx3-ubyte",
    ("held_out", "labels"): "t10k-labels-idx1-ubyte",
}
_SPLIT_SEED = 0


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Bytes in memory, given out as (image, label): float32 in [-1, 1] of (C, H, W), and int64.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, channels, height, width)
    labels : ndarray of integers, shape (n,)
    """

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.integer]) -> None:
        if pixels.ndim != 4 or pixels.dtype != np.uint8 or labels.shape != pixels.shape[:1]:
            raise DataError(
                f"images are {pixels.dtype} of shape {pixels.shape}, labels of shape "
                f"{labels.shape}. Give uint8 of (n, channels, height, width), and n labels."
            )
        self.pixels = torch.from_numpy(pixels.copy(order="C"))
        self.labels = torch.from_numpy(labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.pixels[index].float().div_(127.5).sub_(1.0), self.labels[index]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Return the samples of one batch: what a DataLoader asks for, several times faster."""
        rows = torch.as_tensor(indices)
        pixels = self.pixels[rows].float().div_(127.5).sub_(1.0)
        return list(zip(pixels, self.labels[rows], strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageData:
    """Labelled images, split into training and held-out images.

    Attributes
    ----------
    name, licence, source : str
    train, held_out : Images
    n_classes : int
    content_hash : str
        Hash of all pixels and labels.
    """

    name: str
    licence: str
    train: Images = field(repr=False)
    held_out: Images = field(repr=False)
    n_classes: int
    source: str
    content_hash: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.pixels.shape[1:]
        return int(channels), int(height), int(width)

    @property
    def unique_samples(self) -> int:
        """Training images, before anything is repeated."""
        return len(self.train)

    def unique_tokens(self, patch: int) -> int:
        """Return the training tokens where a token is a patch of `patch` × `patch` pixels."""
        _, height, width = self.shape
        return self.unique_samples * (height // patch) * (width // patch)

    def describe(self) -> str:
        """Return one line: name, source, sizes, licence and hash."""
        return (
            f"{self.name}: {self.source}, {len(self.train):,} training and "
            f"{len(self.held_out):,} held-out images of {' × '.join(map(str, self.shape))}, "
            f"{self.n_classes} classes, {self.licence}, sha256 {self.content_hash}"
        )


def image_data(
    name: str,
    licence: str,
    source: str,
    train: tuple[NDArray[np.uint8], NDArray[np.integer]],
    held_out: tuple[NDArray[np.uint8], NDArray[np.integer]],
) -> ImageData:
    """Make an :class:`ImageData` of two pairs of pixels (n, C, H, W) and labels (n,)."""
    digest = hashlib.sha256()
    for pixels, labels in (train, held_out):
        digest.update(np.ascontiguousarray(pixels).tobytes())
        digest.update(labels.astype("<i8").tobytes())
    return ImageData(
        name=name,
        licence=licence,
        train=Images(*train),
        held_out=Images(*held_out),
        n_classes=1 + int(max(train[1].max(), held_out[1].max())),
        source=source,
        content_hash=digest.hexdigest()[:12],
    )


def fashion_mnist(path: str | os.PathLike[str] | None = None) -> ImageData:
    """Read Fashion-MNIST: from `path`, the Debian package, or the HuggingFace hub.

    Parameters
    ----------
    path : folder, optional
        With the four IDX files, gzipped or not. None: the folder of the Debian and Ubuntu package
        ``dataset-fashion-mnist``; without it, HuggingFace ``datasets`` (extra ``data``).

    Raises
    ------
    DataError
        If it is nowhere to be had; says how to get it.
    """
    folder = Path(path) if path is not None else _DEBIAN
    if path is None and not folder.is_dir():
        from .hub import fashion_mnist_from_hub

        return fashion_mnist_from_hub()
    parts = {key: _read_idx(folder, stem) for key, stem in _FASHION.items()}
    for split in ("train", "held_out"):
        images, labels = parts[split, "images"], parts[split, "labels"]
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{folder} has images of shape {images.shape} with labels of shape "
                f"{labels.shape}. They do not belong together: download them again."
            )
    return image_data(
        "fashion-mnist",
        "MIT",
        "Xiao et al. 2017, IDX files",
        (parts["train", "images"][:, None], parts["train", "labels"]),
        (parts["held_out", "images"][:, None], parts["held_out", "labels"]),
    )


def _read_idx(folder: Path, stem: str) -> NDArray[np.uint8]:
    """Read an IDX file of bytes: 0, 0, 8, n_axes, then n_axes big-endian lengths, then data."""
    for name, opener in ((stem, open), (f"{stem}.gz", gzip.open)):
        file = folder / name
        if file.is_file():
            with opener(file, "rb") as stream:
                raw: bytes = stream.read()
            break
    else:
        raise DataError(
            f"{folder} has no {stem} nor {stem}.gz. Give the folder of Fashion-MNIST's four files, "
            "or install it: apt install dataset-fashion-mnist"
        )
    n_axes = raw[3] if raw[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(raw[4 : 4 + 4 * n_axes], dtype=">u4").astype(int)
    data = np.frombuffer(raw[4 + 4 * n_axes :], dtype=np.uint8)
    if not n_axes or len(data) != shape.prod():
        raise DataError(f"{file} is no IDX file of bytes, or it is cut off. Download it again.")
    return data.reshape(shape)


def digits() -> ImageData:
    """Return scikit-learn's handwritten digits, 8 × 8.

    Raises
    ------
    DataError
        Without scikit-learn; says how to install it.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "digits() are part of scikit-learn, which is not installed: pip install scikit-learn"
        ) from error
    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = np.asarray(bunch.target)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    cut = len(order) - len(order) // 5
    return image_data(
        "digits",
        "CC-BY-4.0",
        "UCI optical recognition of handwritten digits, test part",
        (pixels[order[:cut]], labels[order[:cut]]),
        (pixels[order[cut:]], labels[order[cut:]]),
    )
