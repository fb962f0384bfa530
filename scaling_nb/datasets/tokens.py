"""What a text data set is: token ids in two parts, and where they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Tokens = NDArray[np.integer]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenData:
    """Token ids, split into training and held-out tokens.

    Attributes
    ----------
    name, licence : str
    train, held_out : ndarray of unsigned integers, shape (n_tokens,)
    vocab_size : int, symbols
        Ids are below it.
    source : str
        Where the tokens are from, with the version.
    content_hash : str
        Hash of both parts; equal hash, equal data.
    """

    name: str
    licence: str
    train: Tokens = field(repr=False)
    held_out: Tokens = field(repr=False)
    vocab_size: int
    source: str
    content_hash: str

    @property
    def unique_tokens(self) -> int:
        """Training tokens, before anything is repeated."""
        return len(self.train)

    def describe(self) -> str:
        """Return one line: name, source, sizes, licence and hash."""
        return (
            f"{self.name}: {self.source}, {len(self.train):,} training and "
            f"{len(self.held_out):,} held-out tokens, {self.vocab_size} symbols, "
            f"{self.licence}, sha256 {self.content_hash}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextData(TokenData):
    """Text as token ids, with what each id stands for.

    Attributes
    ----------
    symbols : tuple of bytes
        The vocabulary, in the order of the ids.
    """

    symbols: tuple[bytes, ...] = field(repr=False)

    def decode(self, ids: Tokens | list[int]) -> str:
        """Return the text of token ids; other bytes than UTF-8 become U+FFFD."""
        return b"".join(self.symbols[i] for i in ids).decode("utf-8", errors="replace")

    @property
    def bytes_per_token(self) -> float:
        """Mean length of a training token, bytes.

        A loss in nats per token divided by this is in nats per byte, which does not depend on the
        tokenizer.
        """
        lengths = np.array([len(symbol) for symbol in self.symbols])
        counts = np.bincount(self.train, minlength=len(lengths))
        return float(counts @ lengths / counts.sum())


def hash_parts(*parts: Tokens) -> str:
    """Return the first 12 hex digits of the SHA-256 of the parts, one after another."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:12]


def frozen(array: Tokens) -> Tokens:
    """Return the array, no longer writable."""
    array.flags.writeable = False
    return array


def smallest_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned integer type that holds every id."""
    return np.min_scalar_type(vocab_size - 1)


def cut_tail(tokens: Tokens, share: float) -> tuple[Tokens, Tokens]:
    """Split off the last `share` of the tokens.

    Raises
    ------
    DataError
        If either part would be empty.
    """
    cut = len(tokens) - max(1, round(share * len(tokens)))
    if not 0 < share < 1 or cut < 1:
        raise DataError(
            f"a held-out share of {share} of {len(tokens)} tokens leaves nothing. "
            "Give a share between 0 and 1, and more text."
        )
    return tokens[:cut], tokens[cut:]
