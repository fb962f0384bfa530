"""The Python standard library's own source text: real data that is on every machine.

===============  =========================================================================
size             10 to 20 MB, by Python version (`TextData.describe` has the exact count)
licence          PSF-2.0, the licence of Python itself
symbols          97: newline, tab, and the 95 printable ASCII characters; others are dropped
split            by file, with a fixed seed: 1 in 20 files is held out
===============  =========================================================================
"""

from __future__ import annotations

import hashlib
import platform
import random
import sysconfig
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

SYMBOLS = "\n\t" + "".join(map(chr, range(32, 127)))
"""The vocabulary; a token id is a position in this string."""

_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_SPLIT_SEED = 0
_HELD_OUT_EVERY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TextData:
    """A corpus of token ids, split into training and held-out text.

    Attributes
    ----------
    name, licence : str
    train, held_out : ndarray of uint8, shape (n_tokens,)
        Token ids; the two parts share no file.
    symbols : str
        The vocabulary, in the order of the ids.
    source : str
        Where the text is from, with its version.
    content_hash : str
        Hash of both parts; equal hash, equal data.
    """

    name: str
    licence: str
    train: NDArray[np.uint8] = field(repr=False)
    held_out: NDArray[np.uint8] = field(repr=False)
    symbols: str = field(repr=False)
    source: str
    content_hash: str

    @property
    def vocab_size(self) -> int:
        """Number of symbols."""
        return len(self.symbols)

    @property
    def unique_tokens(self) -> int:
        """Training tokens, before anything is repeated."""
        return len(self.train)

    def decode(self, ids: NDArray[np.integer] | list[int]) -> str:
        """Return the text of token ids."""
        return "".join(self.symbols[i] for i in ids)

    def describe(self) -> str:
        """Return one line: name, source, sizes, licence and hash."""
        return (
            f"{self.name}: {self.source}, {len(self.train):,} training and "
            f"{len(self.held_out):,} held-out tokens, {self.vocab_size} symbols, "
            f"{self.licence}, sha256 {self.content_hash}"
        )


@cache
def stdlib_text() -> TextData:
    """Read the standard library's source as character tokens; works offline everywhere.

    Returns
    -------
    TextData
        The same object at every call: read once, about 0.3 s.

    Raises
    ------
    DataError
        If this Python has no readable standard library source (some embedded builds).
    """
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(
        path
        for path in root.rglob("*.py")
        if not _SKIPPED.intersection(path.relative_to(root).parts)
    )
    texts = {path.relative_to(root).as_posix(): _encode(path.read_bytes()) for path in files}
    texts = {name: ids for name, ids in texts.items() if len(ids)}
    if len(texts) < _HELD_OUT_EVERY:
        raise DataError(
            f"found {len(texts)} source files of the standard library under {root}. "
            "At least 20 are needed: use a Python with its source, or give your own token ids."
        )
    names = sorted(texts)
    random.Random(_SPLIT_SEED).shuffle(names)
    cut = len(names) // _HELD_OUT_EVERY
    held_out = np.concatenate([texts[name] for name in names[:cut]])
    train = np.concatenate([texts[name] for name in names[cut:]])
    digest = hashlib.sha256(train.tobytes())
    digest.update(held_out.tobytes())
    return TextData(
        name="stdlib-text",
        licence="PSF-2.0",
        train=_frozen(train),
        held_out=_frozen(held_out),
        symbols=SYMBOLS,
        source=f"standard library of {platform.python_implementation()} "
        f"{platform.python_version()}",
        content_hash=digest.hexdigest()[:12],
    )


def _encode(text: bytes) -> NDArray[np.uint8]:
    ids = _TABLE[np.frombuffer(text.replace(b"\r\n", b"\n"), dtype=np.uint8)]
    return np.asarray(ids[ids != _DROPPED])


def _frozen(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    array.flags.writeable = False
    return array


_DROPPED = 255
_TABLE = np.full(256, _DROPPED, dtype=np.uint8)
_TABLE[[ord(c) for c in SYMBOLS]] = np.arange(len(SYMBOLS))
