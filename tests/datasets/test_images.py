import gzip
import struct

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from scaling_nb.datasets import digits, fashion_mnist
from scaling_nb.errors import DataError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    """Fashion-MNIST's four files in miniature, one of them unpacked."""
    rng = np.random.default_rng(0)
    for stem, n in (("train", 30), ("t10k", 10)):
        images = rng.integers(0, 256, (n, 28, 28)).astype(np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        with gzip.open(tmp_path / f"{stem}-images-idx3-ubyte.gz", "wb") as stream:
            stream.write(idx(images))
        (tmp_path / f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


def test_idx_files_are_read(folder):
    data = fashion_mnist(folder)
    assert (len(data.train), len(data.held_out), data.n_classes) == (30, 10, 10)
    assert data.shape == (1, 28, 28)
    assert data.unique_tokens(patch=7) == 30 * 16
    image, label = data.train[3]
    assert (image.shape, image.dtype, label.dtype) == ((1, 28, 28), torch.float32, torch.int64)
    assert int(label) == 3
    assert image.min() >= -1
    assert image.max() <= 1
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as stream:
        raw = stream.read()[16:]
    expected = np.frombuffer(raw, np.uint8).reshape(30, 28, 28)[3] / 127.5 - 1
    assert torch.allclose(image[0], torch.tensor(expected, dtype=torch.float32), atol=1e-6)
    assert "MIT" in data.describe()


def test_a_batch_is_the_samples_of_its_indices(folder):
    data = fashion_mnist(folder).train
    images, labels = next(iter(DataLoader(data, batch_sampler=[[4, 2, 9]])))
    assert labels.tolist() == [4, 2, 9]
    assert torch.equal(images, torch.stack([data[i][0] for i in (4, 2, 9)]))


def test_a_broken_download_is_told(folder):
    path = folder / "train-labels-idx1-ubyte"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(DataError, match="cut off"):
        fashion_mnist(folder)
    path.write_bytes(idx(np.zeros(7, np.uint8)))
    with pytest.raises(DataError, match="do not belong together"):
        fashion_mnist(folder)
    path.unlink()
    with pytest.raises(DataError, match="apt install dataset-fashion-mnist"):
        fashion_mnist(folder)


def test_digits_have_a_fixed_split():
    data = digits()
    assert (len(data.train), len(data.held_out)) == (1438, 359)
    assert data.shape == (1, 8, 8)
    assert data.content_hash == digits().content_hash
    assert np.bincount(data.held_out.labels.numpy(), minlength=10).min() > 20
