import numpy as np
import pytest

from scaling_nb.datasets import stdlib_text
from scaling_nb.errors import DataError


def test_characters_are_the_same_at_every_call_and_decode():
    text = stdlib_text()
    assert text is stdlib_text()
    assert text.vocab_size == len(text.symbols) == 97
    assert text.train.dtype == np.uint8
    assert text.train.max() < 97
    assert text.bytes_per_token == 1.0
    assert "def " in text.decode(text.train[:20_000])
    assert text.unique_tokens == len(text.train) > 5_000_000
    assert 0.01 < len(text.held_out) / len(text.train) < 0.15


def test_it_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        stdlib_text().train[0] = 1


def test_byte_pairs_are_the_same_text_in_fewer_tokens():
    characters, pairs = stdlib_text(), stdlib_text(128)
    assert pairs.vocab_size == len(pairs.symbols) == 128
    assert len(pairs.train) < 0.8 * len(characters.train)
    assert pairs.decode(pairs.held_out) == characters.decode(characters.held_out)
    expected = len(characters.train) / len(pairs.train)
    assert pairs.bytes_per_token == pytest.approx(expected, rel=1e-12)
    assert pairs.content_hash != characters.content_hash
    assert "128 symbols, PSF-2.0" in pairs.describe()


def test_a_vocabulary_smaller_than_the_characters_is_refused():
    with pytest.raises(DataError, match="97"):
        stdlib_text(96)
