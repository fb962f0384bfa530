"""What SQLite's errors mean for a person, and which files a write-ahead log suits."""

from __future__ import annotations

import sqlite3
import warnings
from pathlib import Path

import psutil

from .errors import ScalingWarning

_PASSING = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
)


_NOT_WRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)

GONE = sqlite3.OperationalError("the file was deleted or replaced while it was in use")
"""Raised where SQLite itself would go on writing into a file that has no name any more."""
GONE.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN


def is_read_only(error: sqlite3.Error) -> bool:
    """Whether an error says that a file, or its folder, cannot be written."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _NOT_WRITABLE


def may_pass(error: sqlite3.Error) -> bool:
    """Whether an error is of the disk's state, which a person can mend, not of the data."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _PASSING


def cannot_open(path: Path, error: Exception) -> str:
    """Return fact, need and remedy of a store that cannot be opened."""
    if _is_damaged(error) and path.is_file():
        return f"{path} cannot be opened as a run store: {error}.{remedy(path, error)}"
    return (
        f"{path} cannot be opened as a run store: {error}. Give the path of a store, or of a new "
        "file in a folder that can be written."
    )


def _is_damaged(error: Exception) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        # Python's own complaint about a text; SQLite has not looked at it.
        return "decode to UTF-8" in str(error)
    return isinstance(error, sqlite3.DatabaseError)


def remedy(path: Path, error: Exception) -> str:
    """Return how to salvage a damaged store; empty where it is not damaged."""
    if not _is_damaged(error):
        return ""
    return (
        f" If it was a run store, it is damaged: python -m scaling_nb recover {path} salvages "
        "what is readable."
    )


NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smbfs", "smb3", "fuse.sshfs", "9p"})


def file_system_of(path: Path) -> str:
    """Return the type of the file system that a path lies on; empty where it is unknown."""
    path = path.resolve()
    best = ("", "")
    for part in psutil.disk_partitions(all=True):
        if path.is_relative_to(part.mountpoint) and len(part.mountpoint) >= len(best[0]):
            best = (part.mountpoint, part.fstype.lower())
    return best[1]


def journal_for(path: Path) -> str:
    """Return WAL, or DELETE with a warning where WAL's shared memory does not work."""
    kind = file_system_of(path)
    if kind not in NETWORK_FILE_SYSTEMS:
        return "WAL"
    warnings.warn(
        f"{path} is on a network file system ({kind}), where a write-ahead log is not safe: it is "
        "kept with a rollback journal, which is slower. A store on a local disk is faster.",
        ScalingWarning,
        stacklevel=4,
    )
    return "DELETE"
