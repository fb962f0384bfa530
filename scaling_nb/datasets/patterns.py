"""Images that are made here, from a seed: on every machine, without a download.

===============  =========================================================================
size             as many as you ask (40,000 by default) grey images of 28 × 28, 10 classes
licence          CC0, made here from a seed
split            the last tenth is held out
===============  =========================================================================
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from .images import ImageData, image_data

_PATCHES = 4
_CHUNK = 4096


def patterns(
    n_images: int = 40_000,
    *,
    size: int = 28,
    n_classes: int = 10,
    n_filters: int = 64,
    sharpness: float = 6.0,
    seed: int = 0,
) -> ImageData:
    """Draw random images, and classes by what 64 filters see in them, from plain to faint.

    An image is 4 × 4 patches of random pixels. Filter k answers a patch p with tanh(2 u_k·p);
    its mean over the patches counts with a weight k^(−0.75), and the class is
    drawn from softmax(sharpness · Σ_k k^(−0.75) · V_kc · mean_k). So there is always a fainter
    filter left to learn, which is what makes a loss fall as a power of compute. CC0; the last
    tenth is held out.

    Parameters
    ----------
    n_images : int
        Training and held-out images together.
    size : int, pixels
        Side of an image, a multiple of 4.
    n_classes, n_filters : int
    sharpness : float
        Large: the class follows from the image; 0: it is a matter of luck.
    seed : int
        Of filters and images.

    Raises
    ------
    DataError
        If there are fewer than 20 images or 2 classes, or 4 does not divide the size.
    """
    if n_images < 20 or size < 4 or size % _PATCHES or n_classes < 2 or n_filters < 1:
        raise DataError(
            f"{n_images} images of {size} pixels, {n_classes} classes and {n_filters} filters "
            "cannot be made. Give 20 images, 2 classes and 1 filter or more, and a size that is "
            "a multiple of 4."
        )
    rng = np.random.default_rng(seed)
    side = size // _PATCHES
    filters = rng.normal(size=(side * side, n_filters)) / side
    weight = np.arange(1, n_filters + 1) ** -0.75
    votes = weight[:, None] * rng.normal(size=(n_filters, n_classes))
    votes *= sharpness / np.sqrt((weight**2).sum())
    pixels = np.empty((n_images, 1, size, size), dtype=np.uint8)
    labels = np.empty(n_images, dtype=np.int64)
    for start in range(0, n_images, _CHUNK):
        n = min(_CHUNK, n_images - start)
        patches = rng.normal(size=(n, _PATCHES, _PATCHES, side, side))
        seen = patches.reshape(n, _PATCHES**2, side * side) @ filters
        answers = np.tanh(2 * seen).mean(axis=1) * _PATCHES
        # Adding Gumbel noise and taking the largest draws from the softmax.
        luck = -np.log(-np.log(rng.uniform(1e-12, 1, size=(n, n_classes))))
        labels[start : start + n] = (answers @ votes + luck).argmax(axis=1)
        grey = patches.transpose(0, 1, 3, 2, 4).reshape(n, 1, size, size)
        pixels[start : start + n] = np.clip(128 + 42 * grey, 0, 255)
    cut = n_images - n_images // 10
    return image_data(
        "patterns",
        "CC0-1.0",
        f"{n_filters} filters, sharpness {sharpness:g}, seed {seed}",
        (pixels[:cut], labels[:cut]),
        (pixels[cut:], labels[cut:]),
    )
