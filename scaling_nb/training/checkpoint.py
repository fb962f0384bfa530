"""Checkpoints: what a job needs to go on, bit for bit, after anything.

A file is written beside its place, synced, and moved there, so it is whole or absent; the one
before it is kept, in case the disk damaged the newest. Files are read with ``weights_only=True``:
opening somebody's folder cannot run code.
"""

from __future__ import annotations

import contextlib
import logging
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..records import RunSpec, content_hash
from .trainer import CurvePiece, Snapshot

_log = logging.getLogger(__name__)
VERSION = 1
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A job between two steps.

    Attributes
    ----------
    trunk : Snapshot or None
        The trunk where it stands, or where the run in training branched off; None in the last
        run of a job, which does not come back to its trunk.
    trunk_curve : CurvePiece
        Training curve of the trunk up to there.
    branch_run : str
        run_id of the run that is cooling down; empty on the trunk.
    branch : Snapshot or None
    branch_curve : CurvePiece
    seconds : float, seconds
        Time that the run in training has taken.
    """

    trunk: Snapshot | None
    trunk_curve: CurvePiece
    branch_run: str = ""
    branch: Snapshot | None = None
    branch_curve: CurvePiece
    seconds: float = 0.0


def checkpoint_key(spec: RunSpec) -> str:
    """Return what names the trunk of a run by content, in whatever plan it is."""
    return content_hash(
        [spec.recipe_id, spec.size, spec.seed, spec.trunk_id, spec.lr, spec.schedule]
    )


class Checkpoint:
    """One job's newest checkpoint and the one before. Not thread-safe: one job, one worker.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    key : str
        From :func:`checkpoint_key`.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.key = key
        self.path = folder / f"{key}.pt"
        self.previous = folder / f"{key}.previous.pt"

    def save(self, saved: Saved) -> None:
        """Write atomically; raise `OSError` with nothing lost where the disk does not take it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                torch.save({"version": VERSION, "key": self.key, **_packed(saved)}, file)
                file.flush()
                os.fsync(file.fileno())
            if self.path.exists():
                os.replace(self.path, self.previous)
            os.replace(temporary, self.path)
            _sync_folder(self.path.parent)
        except RuntimeError as error:
            # torch's zip writer turns a failed write into a RuntimeError.
            temporary.unlink(missing_ok=True)
            raise OSError(f"{self.path} cannot be written: {error}") from error
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def candidates(self) -> list[Saved]:
        """Return what can be read, newest first; damaged files are logged and passed over."""
        found = []
        for path in (self.path, self.previous):
            if not path.exists():
                continue
            try:
                # torch takes a file without this for one of its older form, another reader's job.
                with path.open("rb") as file:
                    if file.read(len(_ZIP)) != _ZIP:
                        raise ValueError("it does not begin as a checkpoint does")
                # torch reads without comparing the zip's own check sums.
                with zipfile.ZipFile(path) as archive:
                    if damaged := archive.testzip():
                        raise ValueError(f"{damaged} in it is damaged")
                data = torch.load(path, map_location="cpu", weights_only=True)
                if data["version"] != VERSION or data["key"] != self.key:
                    raise ValueError("it is of another version or job")
                found.append(_unpacked(data))
            except Exception as error:
                _log.warning("checkpoint %s cannot be used: %s", path, error)
        return found

    def delete(self) -> None:
        """Remove the files: the job is done. One that cannot be removed does no harm."""
        half_written = self.path.parent.glob(f"{self.key}.*.tmp")
        for path in (self.path, self.previous, *half_written):
            with contextlib.suppress(OSError):
                path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove half-written files of processes that were killed."""
    for path in folder.glob("*.tmp"):
        path.unlink(missing_ok=True)


def remove_folder(folder: Path, specs: Iterable[RunSpec]) -> None:
    """Remove the checkpoints of these runs, and the folder if nothing else is in it."""
    for key in {checkpoint_key(spec) for spec in specs}:
        Checkpoint(folder, key).delete()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # a folder cannot be opened there; the file system orders the move itself
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _packed(saved: Saved) -> dict[str, Any]:
    return {
        "trunk": _pack_snapshot(saved.trunk),
        "trunk_curve": _pack_curve(saved.trunk_curve),
        "branch_run": saved.branch_run,
        "branch": _pack_snapshot(saved.branch),
        "branch_curve": _pack_curve(saved.branch_curve),
        "seconds": float(saved.seconds),
    }


def _unpacked(data: Mapping[str, Any]) -> Saved:
    return Saved(
        trunk=_unpack_snapshot(data["trunk"]),
        trunk_curve=_unpack_curve(data["trunk_curve"]),
        branch_run=data["branch_run"],
        branch=_unpack_snapshot(data["branch"]),
        branch_curve=_unpack_curve(data["branch_curve"]),
        seconds=data["seconds"],
    )


def _pack_snapshot(snapshot: Snapshot | None) -> dict[str, Any] | None:
    if snapshot is None:
        return None
    return {name: _plain(getattr(snapshot, name)) for name in Snapshot.__slots__}


def _unpack_snapshot(data: Mapping[str, Any] | None) -> Snapshot | None:
    return None if data is None else Snapshot(**data)


def _pack_curve(curve: CurvePiece) -> dict[str, torch.Tensor]:
    return {"tokens": torch.tensor(curve.tokens), "loss": torch.tensor(curve.loss)}


def _unpack_curve(data: Mapping[str, torch.Tensor]) -> CurvePiece:
    return CurvePiece(tokens=data["tokens"].numpy(), loss=data["loss"].numpy())


def _plain(value: Any) -> Any:
    """Return `value` without numpy scalars and arrays, which the safe loader refuses."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    return value
