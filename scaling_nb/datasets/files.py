"""Your own text files, and token files that are larger than memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from ..errors import DataError
from .bpe import train_bpe
from .tokens import TextData, TokenData, Tokens, cut_tail, frozen, hash_parts

HELD_OUT = 0.05
_BYTES = tuple(bytes([byte]) for byte in range(256))
_HASHED_WHOLE = 2**26


def text_files(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    vocab_size: int = 256,
    held_out: float = HELD_OUT,
    licence: str = "your own",
) -> TextData:
    """Read text files as tokens: bytes, or byte pairs trained on the training part.

    The licence is what you name; the end of the text is held out.

    Parameters
    ----------
    paths : path, or sequence of paths
        Read in the order given; a folder stands for its ``*.txt`` files, by name.
    vocab_size : int, symbols
        256: a token is a byte, whatever the encoding. More: byte pairs.
    held_out : float
        The last share of the text, cut in one place, is held out.
    licence : str
        Kept with the data.

    Raises
    ------
    DataError
        If a path is missing, there is no text, or `vocab_size` is below 256.
    """
    found = [file for path in _as_paths(paths) for file in _expand(path)]
    text = b"".join(file.read_bytes() for file in found)
    return tokenise(
        *cut_tail(np.frombuffer(text, dtype=np.uint8), held_out),
        vocab_size=vocab_size,
        name=found[0].stem if len(found) == 1 else f"{len(found)} text files",
        licence=licence,
        source=", ".join(file.name for file in found[:3]) + (", …" if len(found) > 3 else ""),
    )


def tokenise(
    train: Tokens, held_out: Tokens, *, vocab_size: int, name: str, licence: str, source: str
) -> TextData:
    """Make a :class:`TextData` of two parts of raw bytes, uint8; byte pairs above 256 symbols."""
    symbols = _BYTES
    if vocab_size < 256:
        raise DataError(f"vocab_size={vocab_size} is below the 256 bytes. Give 256 or more.")
    if vocab_size > 256:
        # The training text first spells every byte: held-out text may have ones it lacks.
        pairs = train_bpe(b"\n".join(_BYTES) + b"\n" + train.tobytes(), vocab_size)
        train, held_out = pairs.encode(train.tobytes()), pairs.encode(held_out.tobytes())
        symbols = pairs.symbols
    return TextData(
        name=name,
        licence=licence,
        train=frozen(train),
        held_out=frozen(held_out),
        vocab_size=vocab_size,
        symbols=symbols,
        source=source,
        content_hash=hash_parts(train, held_out),
    )


def token_memmap(
    path: str | os.PathLike[str],
    *,
    dtype: DTypeLike = np.uint16,
    vocab_size: int | None = None,
    held_out: float | str | os.PathLike[str] = HELD_OUT,
    licence: str = "your own",
) -> TokenData:
    """Open a file of token ids without reading it into memory.

    The licence is what you name; the end of the file is held out, or a second file.

    Parameters
    ----------
    path : path
        ``.npy`` of a 1-D integer array, or raw ids of `dtype` (nanoGPT's ``train.bin``).
    dtype : numpy dtype
        Of a raw file.
    vocab_size : int, symbols, optional
        None: the largest id + 1, for which the file is read through once.
    held_out : float or path
        A share, cut off the end, or a second file (``val.bin``).
    licence : str

    Returns
    -------
    TokenData
        Its ``content_hash`` is of 1024 pages spread over a file of more than 64 MB.

    Raises
    ------
    DataError
        If the file is missing, empty, not one-dimensional or not of whole tokens, or an id is not
        below `vocab_size` where that is checked.
    """
    tokens = _open(Path(path), np.dtype(dtype))
    if isinstance(held_out, float):
        train, rest = cut_tail(tokens, held_out)
    else:
        train, rest = tokens, _open(Path(held_out), np.dtype(dtype))
    if vocab_size is None:
        vocab_size = 1 + max(_largest(train), _largest(rest))
    return TokenData(
        name=Path(path).stem,
        licence=licence,
        train=train,
        held_out=rest,
        vocab_size=vocab_size,
        source=Path(path).name,
        content_hash=hash_parts(_sampled(train), _sampled(rest)),
    )


def _open(path: Path, dtype: np.dtype[np.generic]) -> Tokens:
    if not path.is_file():
        raise DataError(f"there is no file {path}. Give a file of token ids.")
    if path.suffix == ".npy":
        tokens: Tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        size = path.stat().st_size
        if size == 0 or size % dtype.itemsize:
            raise DataError(
                f"{path} has {size} bytes, not a whole number of {dtype} tokens. "
                "Name the dtype that it was written with."
            )
        tokens = np.memmap(path, dtype=dtype, mode="r")
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise DataError(
            f"{path} holds {tokens.dtype} of shape {tokens.shape}. "
            "It must be a 1-D array of integer token ids."
        )
    return tokens


def _largest(tokens: Tokens) -> int:
    step = 2**24
    return max(int(tokens[k : k + step].max()) for k in range(0, len(tokens), step))


def _sampled(tokens: Tokens) -> Tokens:
    if tokens.nbytes <= _HASHED_WHOLE:
        return tokens
    starts = np.linspace(0, len(tokens) - 4096, 1024).astype(int)
    return np.concatenate([tokens[start : start + 4096] for start in starts])


def _as_paths(paths: object) -> list[Path]:
    if isinstance(paths, str | os.PathLike):
        return [Path(paths)]
    return [Path(path) for path in paths]  # type: ignore[attr-defined]


def _expand(path: Path) -> list[Path]:
    found = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not found or not all(file.is_file() for file in found):
        raise DataError(f"{path} is no text file, nor a folder with .txt files. Check the path.")
    return found
