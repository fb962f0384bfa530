"""Images made here: the same from a seed, and worth learning."""

import numpy as np
import pytest

from scaling_nb.datasets import patterns
from scaling_nb.errors import DataError


def test_a_seed_decides_everything():
    a = patterns(2000)
    assert a.shape == (1, 28, 28)
    assert (len(a.train), len(a.held_out), a.n_classes) == (1800, 200, 10)
    assert a.licence == "CC0-1.0"
    assert a.content_hash == patterns(2000).content_hash != patterns(2000, seed=1).content_hash
    assert np.bincount(a.train.labels).min() > 20


def test_pixels_tell_of_the_class_and_not_all_of_it():
    """A linear reader of the mean patch beats a guess, and is far from sure."""
    data = patterns(6000)

    def features(images):
        pixels = images.pixels.numpy()[:, 0].reshape(-1, 4, 7, 4, 7) / 42.0 - 3.0
        return pixels.mean(axis=(1, 3)).reshape(len(pixels), -1)

    x, labels = features(data.train), data.train.labels.numpy()
    weights = np.linalg.lstsq(x, np.eye(10)[labels])[0]
    right = (features(data.held_out) @ weights).argmax(1) == data.held_out.labels.numpy()
    assert 0.25 < right.mean() < 0.8


def test_what_cannot_be_made_is_told():
    with pytest.raises(DataError, match="a multiple of 4"):
        patterns(100, size=30)
