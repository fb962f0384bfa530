"""A small byte-pair encoding, trained on the text that it encodes.

Text is cut into words with the space before them, so that no token spans two words; the most
frequent pair of neighbouring tokens becomes a new token, until the vocabulary is full (Sennrich
et al. 2016). It works on the *distinct* words, of which source code has few: the standard
library's 12 MB are encoded in seconds, without a dependency.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .tokens import Tokens, smallest_dtype

_WORD = re.compile(rb" ?[A-Za-z\x80-\xff]+| ?[0-9]| ?[^\sA-Za-z0-9\x80-\xff]+|\s+?(?= ?\S)|\s+")
_END = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class BytePairs:
    """A trained vocabulary: the bytes that occur, then one symbol for each merge.

    Attributes
    ----------
    symbols : tuple of bytes
        What each id stands for.
    merges : tuple of (int, int)
        The pair of ids behind each merged symbol, in the order of training.
    """

    symbols: tuple[bytes, ...]
    merges: tuple[tuple[int, int], ...]

    def encode(self, text: bytes) -> Tokens:
        """Return the text's token ids.

        Raises
        ------
        DataError
            If the text has a byte that the training text had not.
        """
        return self._encode_words(_WORD.findall(text))

    def _encode_words(self, words: list[bytes]) -> Tokens:
        number: dict[bytes, int] = {}
        which = np.fromiter((number.setdefault(w, len(number)) for w in words), int, len(words))
        ids = _spell(list(number), self.symbols)
        n_bytes = len(self.symbols) - len(self.merges)
        for k, pair in enumerate(self.merges):
            ids = _merge(ids, pair, n_bytes + k)
        ends = np.flatnonzero(ids == _END)
        pieces = np.split(ids[ids != _END], np.cumsum(np.diff(ends, prepend=-1) - 1)[:-1])
        lengths = np.array([len(piece) for piece in pieces])
        starts = np.cumsum(lengths) - lengths
        return _gather(np.concatenate(pieces or [ids[:0]]), starts, lengths, which).astype(
            smallest_dtype(len(self.symbols))
        )


def train_bpe(text: bytes, vocab_size: int) -> BytePairs:
    """Learn a vocabulary of `vocab_size` symbols; deterministic.

    Raises
    ------
    DataError
        If `vocab_size` is below the number of distinct bytes, above 65,536, or the text has too
        few pairs to fill it.
    """
    alphabet = sorted(set(text))
    if not len(alphabet) <= vocab_size <= 2**16:
        raise DataError(
            f"vocab_size={vocab_size} does not fit a text of {len(alphabet)} distinct bytes. "
            f"Give {len(alphabet)} to 65,536."
        )
    counted = Counter(_WORD.findall(text))
    symbols = [bytes([byte]) for byte in alphabet]
    ids = _spell(list(counted), symbols)
    counts = np.fromiter(counted.values(), float, len(counted))
    merges: list[tuple[int, int]] = []
    while len(symbols) < vocab_size:
        weight = counts[np.cumsum(ids == _END) - (ids == _END)]
        inside = (ids[:-1] != _END) & (ids[1:] != _END)
        code = ids[:-1][inside] * len(symbols) + ids[1:][inside]
        frequency = np.bincount(code, weight[:-1][inside])
        if not len(frequency) or frequency.max() < 2:
            raise DataError(
                f"the text has pairs for {len(symbols)} symbols only, not {vocab_size}. "
                "Give more text or a smaller vocab_size."
            )
        pair = divmod(int(frequency.argmax()), len(symbols))
        ids = _merge(ids, pair, len(symbols))
        symbols.append(symbols[pair[0]] + symbols[pair[1]])
        merges.append(pair)
    return BytePairs(symbols=tuple(symbols), merges=tuple(merges))


def _spell(words: list[bytes], symbols: Sequence[bytes]) -> NDArray[np.int64]:
    """Return the words' bytes as ids, `_END` after each word."""
    table = np.full(256, _END - 1, dtype=np.int64)
    for k, symbol in enumerate(symbols):
        if len(symbol) == 1:
            table[symbol[0]] = k
    # Words hold no byte 0 of their own that could be mistaken for the mark: lengths place it.
    lengths = np.array([len(word) for word in words], dtype=np.int64)
    ids = table[np.frombuffer(b"".join(words), dtype=np.uint8)]
    if (ids == _END - 1).any():
        raise DataError(
            "the text has bytes that the vocabulary was not trained on. Train it on this text."
        )
    return np.asarray(np.insert(ids, np.cumsum(lengths), _END))


def _merge(ids: NDArray[np.int64], pair: tuple[int, int], new: int) -> NDArray[np.int64]:
    """Replace every (left, right) by `new`, from the left where they overlap."""
    at = np.flatnonzero((ids[:-1] == pair[0]) & (ids[1:] == pair[1]))
    if pair[0] == pair[1] and len(at):
        # In a run such as "aaa" every second position starts a pair.
        first = np.concatenate([[True], np.diff(at) > 1])
        run_start = np.maximum.accumulate(np.where(first, at, 0))
        at = at[(at - run_start) % 2 == 0]
    ids = ids.copy()
    ids[at] = new
    keep = np.ones(len(ids), dtype=bool)
    keep[at + 1] = False
    return ids[keep]


def _gather(
    flat: NDArray[np.int64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    which: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Concatenate ``flat[start : start + length]`` for each entry of `which`."""
    n = lengths[which]
    offsets = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    return np.asarray(flat[np.repeat(starts[which], n) + offsets])
