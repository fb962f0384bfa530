"""Fashion-MNIST, from the Debian package, a folder or the hub.

===============  =========================================================================
size             60,000 + 10,000 grey images of 28 × 28, 10 classes of clothes, 30 MB packed
licence          MIT
split            the authors' own: the 10,000 are held out
===============  =========================================================================
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .hub import fashion_mnist_from_hub
from .images import ImageData, image_data

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_FASHION = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("held_out", "images"): "t10k-images-idx3-ubyte",
    ("held_out", "labels"): "t10k-labels-idx1-ubyte",
}


def fashion_mnist(
    path: str | os.PathLike[str] | None = None, *, download: bool = True
) -> ImageData:
    """Read Fashion-MNIST: from `path`, the Debian package, or the HuggingFace hub.

    MIT; the authors' own 10,000 test images are held out.

    Parameters
    ----------
    path : folder, optional
        With the four IDX files, gzipped or not. None: the folder of the Debian and Ubuntu package
        ``dataset-fashion-mnist``; without it, HuggingFace ``datasets`` (extra ``data``).
    download : bool
        False: do not ask the hub.

    Raises
    ------
    DataError
        If it is nowhere to be had; says how to get it.
    """
    folder = Path(path) if path is not None else _DEBIAN
    if path is None and not folder.is_dir():
        if not download:
            raise DataError(
                f"Fashion-MNIST is not in {folder}: apt install dataset-fashion-mnist puts it "
                "there. Or give path=, a folder with its four IDX files, or download=True."
            )
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
