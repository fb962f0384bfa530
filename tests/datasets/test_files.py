import numpy as np
import pytest

import scaling_nb as snb
from scaling_nb.datasets import text_files, token_memmap
from scaling_nb.errors import DataError

TEXT = "Ein Haus, zwei Häuser – viele Wörter.\n" * 200


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "b.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "a.txt").write_text("first\n" * 50, encoding="utf-8")
    (tmp_path / "c.md").write_text("not read")
    return tmp_path


def test_a_folder_is_its_text_files_by_name(folder):
    text = text_files(folder)
    whole = "first\n" * 50 + TEXT
    assert text.decode(np.concatenate([text.train, text.held_out])) == whole
    assert len(text.held_out) == round(0.05 * len(whole.encode()))
    assert text.source == "a.txt, b.txt"
    assert text.vocab_size == 256


def test_byte_pairs_spell_bytes_that_only_the_held_out_part_has(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text(TEXT + "Ω" * 100, encoding="utf-8")
    text = text_files(path, vocab_size=280)
    assert text.name == "t"
    assert text.decode(np.concatenate([text.train, text.held_out])) == TEXT + "Ω" * 100
    assert text.bytes_per_token > 1.5


def test_missing_text_says_which(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        text_files(tmp_path / "nowhere.txt")
    with pytest.raises(DataError, match=r"\.txt"):
        text_files(tmp_path)
    with pytest.raises(DataError, match="256"):
        text_files(tmp_path, vocab_size=100) if (tmp_path / "x.txt").write_text("a b") else None


def test_equal_text_has_equal_hash(folder):
    assert text_files(folder).content_hash == text_files(folder).content_hash
    assert text_files(folder).content_hash != text_files(folder / "a.txt").content_hash


@pytest.mark.parametrize("suffix", [".bin", ".npy"])
def test_token_files_stay_on_disk(tmp_path, suffix):
    ids = np.random.default_rng(0).integers(0, 500, 10_000).astype(np.uint16)
    path = tmp_path / f"train{suffix}"
    np.save(path, ids) if suffix == ".npy" else ids.tofile(path)
    data = token_memmap(path)
    assert isinstance(data.train, np.memmap)
    assert np.array_equal(np.concatenate([data.train, data.held_out]), ids)
    assert data.vocab_size == ids.max() + 1
    assert len(data.held_out) == 500


def test_a_second_file_is_held_out_and_a_recipe_takes_it(tmp_path, tokens):
    from helpers import TinyLM

    tokens[:39_000].tofile(tmp_path / "train.bin")
    tokens[39_000:].tofile(tmp_path / "val.bin")
    data = token_memmap(tmp_path / "train.bin", dtype=np.uint8, held_out=tmp_path / "val.bin")
    assert (len(data.train), len(data.held_out), data.vocab_size) == (39_000, 1_000, 11)
    recipe = snb.Recipe(
        TinyLM,
        size="width",
        model_kwargs={"vocab_size": data.vocab_size},
        dataset=data.train,
        eval_dataset=data.held_out,
        tokens_per_sample=8,
    )
    assert recipe.unique_tokens == 38_992


def test_wrong_token_files_are_refused(tmp_path):
    (tmp_path / "odd.bin").write_bytes(b"abc")
    np.save(tmp_path / "float.npy", np.ones(4))
    for name, message in (("odd.bin", "whole number"), ("float.npy", "1-D array"), ("no", "no")):
        with pytest.raises(DataError, match=message):
            token_memmap(tmp_path / name)
