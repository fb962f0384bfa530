"""The Python standard library's own source text: real data that is on every machine.

===============  =========================================================================
size             10 to 20 MB, by Python version (`TextData.describe` has the exact count)
licence          PSF-2.0, the licence of Python itself
symbols          97: newline, tab, and the 95 printable ASCII characters; others are dropped.
                 With ``vocab_size``: byte pairs, trained on the training text
split            by file, with a fixed seed: 1 in 20 files is held out
===============  =========================================================================
"""

from __future__ import annotations

import platform
import random
import sysconfig
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .bpe import train_bpe
from .tokens import TextData, Tokens, frozen, hash_parts

SYMBOLS = "\n\t" + "".join(map(chr, range(32, 127)))
"""The characters that are kept; without byte pairs, a token id is a position in this string."""

_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_SPLIT_SEED = 0
_HELD_OUT_EVERY = 20


@cache
def stdlib_text(vocab_size: int = len(SYMBOLS)) -> TextData:
    """Read the standard library's source as tokens; works offline everywhere.

    PSF-2.0, as Python itself; one file in twenty is held out.

    Parameters
    ----------
    vocab_size : int, symbols
        97: characters. More: byte pairs trained on the training text, such as 512 (about 4 s).
        Losses per token of two vocabularies compare after division by `bytes_per_token`.

    Returns
    -------
    TextData
        The same object at every call: read once, about 0.3 s.

    Raises
    ------
    DataError
        If this Python has no readable standard library source (some embedded builds), or
        `vocab_size` is below 97.
    """
    if vocab_size < len(SYMBOLS):
        raise DataError(f"vocab_size={vocab_size} is below the {len(SYMBOLS)} characters. Give 97.")
    train, held_out = _read(Path(sysconfig.get_path("stdlib")))
    symbols = tuple(c.encode() for c in SYMBOLS)
    if vocab_size > len(SYMBOLS):
        pairs = train_bpe(_text(train), vocab_size)
        train, held_out = pairs.encode(_text(train)), pairs.encode(_text(held_out))
        symbols = pairs.symbols
    return TextData(
        name="stdlib-text" if vocab_size == len(SYMBOLS) else f"stdlib-text-bpe{vocab_size}",
        licence="PSF-2.0",
        train=frozen(train),
        held_out=frozen(held_out),
        vocab_size=vocab_size,
        symbols=symbols,
        source=f"standard library of {platform.python_implementation()} "
        f"{platform.python_version()}",
        content_hash=hash_parts(train, held_out),
    )


def _read(root: Path) -> tuple[Tokens, Tokens]:
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
    return train, held_out


def _encode(text: bytes) -> NDArray[np.uint8]:
    ids = _TABLE[np.frombuffer(text.replace(b"\r\n", b"\n"), dtype=np.uint8)]
    return np.asarray(ids[ids != _DROPPED])


def _text(ids: Tokens) -> bytes:
    return np.frombuffer(SYMBOLS.encode(), dtype=np.uint8)[ids].tobytes()


_DROPPED = 255
_TABLE = np.full(256, _DROPPED, dtype=np.uint8)
_TABLE[[ord(c) for c in SYMBOLS]] = np.arange(len(SYMBOLS))
