"""Scikit-learn's handwritten digits, for smoke tests: too few for a scaling law.

===============  =========================================================================
size             1,797 grey images of 8 × 8, 10 classes, inside scikit-learn
licence          CC BY 4.0
split            one in five is held out, drawn with a fixed seed
===============  =========================================================================
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from .images import ImageData, image_data

_SPLIT_SEED = 0


def digits() -> ImageData:
    """Return scikit-learn's handwritten digits, 8 × 8; CC BY 4.0, one in five held out.

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
