"""The real loading code on small files of the hub's own schema, and what it says offline."""

import os
import subprocess
import sys

import datasets
import numpy as np
import pytest

from scaling_nb.datasets import cifar10, tinystories
from scaling_nb.datasets.hub import fashion_mnist_from_hub
from scaling_nb.errors import DataError

STORIES = [f"Once upon a time there was a cat called Tom {i}. " * 5 for i in range(60)]


@pytest.fixture
def stories(tmp_path):
    datasets.Dataset.from_dict({"text": STORIES}).to_parquet(
        tmp_path / "train-00000-of-00001-0123.parquet"
    )
    datasets.Dataset.from_dict({"text": STORIES[:5]}).to_parquet(
        tmp_path / "validation-00000-of-00001-4567.parquet"
    )
    return tmp_path


def images(n, size, mode, column):
    rng = np.random.default_rng(n)
    shape = (n, size, size, 3) if mode == "RGB" else (n, size, size)
    pixels = rng.integers(0, 256, shape).astype(np.uint8)
    features = datasets.Features(
        {column: datasets.Image(), "label": datasets.ClassLabel(num_classes=10)}
    )
    labels = [i % 10 for i in range(n)]
    return pixels, datasets.Dataset.from_dict(
        {column: list(pixels), "label": labels}, features=features
    )


def test_stories_are_streamed_up_to_the_limit(stories):
    text = tinystories(10_000, path=stories)
    whole = "".join(f"{story.strip()}\n\n" for story in STORIES)
    assert text.decode(text.train) == whole[:10_000]
    assert text.decode(text.held_out) == whole[:500]
    assert (text.vocab_size, text.licence) == (256, "CDLA-Sharing-1.0")


def test_stories_as_byte_pairs(stories):
    text = tinystories(10_000, path=stories, vocab_size=270)
    assert text.decode(text.train) == tinystories(10_000, path=stories).decode(
        tinystories(10_000, path=stories).train
    )
    assert text.bytes_per_token > 1.5


def test_cifar_is_read_with_its_channels_first(tmp_path):
    pixels, rows = images(20, 32, "RGB", "img")
    rows.to_parquet(tmp_path / "train-00000-of-00001.parquet")
    images(10, 32, "RGB", "img")[1].to_parquet(tmp_path / "test-00000-of-00001.parquet")
    data = cifar10(tmp_path)
    assert data.shape == (3, 32, 32)
    assert (len(data.train), len(data.held_out), data.n_classes) == (20, 10, 10)
    assert np.array_equal(data.train.pixels.numpy(), pixels.transpose(0, 3, 1, 2))
    assert data.train.labels.tolist() == [i % 10 for i in range(20)]


def test_grey_images_of_the_hub(tmp_path):
    pixels, rows = images(12, 28, "L", "image")
    rows.to_parquet(tmp_path / "train.parquet")
    rows.to_parquet(tmp_path / "test.parquet")
    data = fashion_mnist_from_hub(tmp_path)
    assert data.shape == (1, 28, 28)
    assert np.array_equal(data.train.pixels[:, 0].numpy(), pixels)


def test_files_of_another_form_are_told(stories, tmp_path):
    with pytest.raises(DataError, match=r"no train\*\.parquet"):
        tinystories(path=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"columns 'text', but no 'img'"):
        datasets.Dataset.from_dict({"text": STORIES[:5]}).to_parquet(stories / "test-0.parquet")
        cifar10(stories)


ADVICE = {
    "tinystories": ["path=", "stdlib_text()"],
    "cifar10": ["path=", "patterns()"],
    "fashion_mnist_from_hub": ["IDX", "apt install dataset-fashion-mnist", "patterns()"],
}


def test_without_the_hub_each_set_has_its_own_advice(tmp_path):
    code = (
        "import sys\n"
        "from scaling_nb.datasets import hub\n"
        "for installed in (True, False):\n"
        "    if not installed: sys.modules['datasets'] = None\n"
        f"    for name in {list(ADVICE)}:\n"
        "        try: getattr(hub, name)()\n"
        "        except ValueError as error: print(name, error)\n"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | offline,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    for line in lines:
        name = line.split()[0]
        assert all(words in line for words in ADVICE[name]), line
        assert ("stdlib_text()" in line) == (name == "tinystories")
    assert all("could not be loaded" in line for line in lines[:3])
    assert all("pip install 'scaling_nb[data]'" in line for line in lines[3:])
