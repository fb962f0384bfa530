import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from scaling_nb.datasets.bpe import train_bpe
from scaling_nb.errors import DataError


def test_the_most_frequent_pair_comes_first():
    pairs = train_bpe(b"abab abab abac", 5)
    assert pairs.symbols == (b" ", b"a", b"b", b"c", b"ab")
    assert pairs.merges == ((1, 2),)
    assert pairs.encode(b"abc ab").tolist() == [4, 3, 0, 4]


def test_runs_of_one_symbol_are_merged_from_the_left():
    pairs = train_bpe(b"aaaaa aaaa", 3)
    assert pairs.merges == ((1, 1),)
    assert pairs.encode(b"aaaaa").tolist() == [2, 2, 1]


def test_no_token_spans_two_words():
    pairs = train_bpe(b"so it goes; so it goes; " * 30, 16)
    assert not any(b" " in symbol[1:] for symbol in pairs.symbols)


@settings(max_examples=40)
@given(st.binary(min_size=1, max_size=300), st.integers(0, 6))
def test_any_bytes_come_back(text, extra):
    text = text * 3
    pairs = train_bpe(text, len(set(text)))
    for size in range(len(set(text)), len(set(text)) + extra + 1):
        try:
            pairs = train_bpe(text, size)
        except DataError:
            break
        assert len(pairs.symbols) == size
    ids = pairs.encode(text)
    assert b"".join(pairs.symbols[i] for i in ids) == text


def test_a_vocabulary_that_the_text_cannot_fill_is_refused():
    with pytest.raises(DataError, match="has pairs for"):
        train_bpe(b"ab ab", 50)
    with pytest.raises(DataError, match="distinct bytes"):
        train_bpe(b"abc", 2)


def test_unknown_bytes_are_refused_and_nothing_is_nothing():
    pairs = train_bpe(b"ab ab", 4)
    with pytest.raises(DataError, match="not trained on"):
        pairs.encode(b"xyz")
    assert np.array_equal(pairs.encode(b""), [])
