"""The SQLite file of a run store: made, opened to write or only to read, and known again."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from .disk import cannot_open, is_read_only, journal_for
from .errors import StoreError

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta   (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE sweeps (sweep_id TEXT PRIMARY KEY, plan TEXT NOT NULL, recipe TEXT NOT NULL,
                     created REAL NOT NULL);
CREATE TABLE runs   (run_id TEXT PRIMARY KEY, result TEXT NOT NULL,
                     updated REAL NOT NULL);
CREATE TABLE chunks (id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, n INTEGER NOT NULL,
                     tokens BLOB NOT NULL, loss BLOB NOT NULL);
CREATE INDEX chunks_by_run ON chunks (run_id);
"""


class Database:
    """One SQLite file in WAL mode.

    Parameters
    ----------
    path : path-like
        Made if it does not exist, with its folder.

    Attributes
    ----------
    read_only : bool
        The file or its folder cannot be written.

    Raises
    ------
    StoreError
        The file is no store, is of a newer version, or cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        # A notebook may change its folder while the store is open.
        self._file = self.path.absolute()
        self._mode = "mode=rwc"
        self.read_only = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except StoreError:
            raise
        except (sqlite3.Error, OSError) as error:
            raise StoreError(cannot_open(self.path, error)) from error
        self._identity = self._identify()

    def connect(self) -> sqlite3.Connection:
        """Return a connection of the caller's own, in autocommit mode."""
        place = f"{self._file.as_uri()}?{self._mode}"
        connection = sqlite3.connect(place, uri=True, timeout=30, isolation_level=None)
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    @property
    def gone(self) -> bool:
        """Whether the file was deleted, or another has taken its name."""
        return self._identify() != self._identity

    def _identify(self) -> tuple[int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _open(self) -> None:
        try:
            with contextlib.closing(self.connect()) as connection:
                self._prepare(connection)
            # From now on: a file that is deleted under a sweep must not come back, empty.
            self._mode = "mode=rw"
        except sqlite3.Error as error:
            if not (is_read_only(error) and self._file.is_file()):
                raise
            self._open_to_read(error)

    def _open_to_read(self, error: sqlite3.Error) -> None:
        """Open a store that cannot be written: on a read-only mount, say, or somebody else's."""
        self.read_only = True
        # A file in WAL mode wants shared memory beside it, unless nobody can be writing to it.
        for self._mode in ("mode=ro", "mode=ro&immutable=1"):
            try:
                with contextlib.closing(self.connect()) as connection:
                    self._check_version(connection)
                return
            except sqlite3.Error:
                continue
        raise error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA journal_mode={journal_for(self.path)}")
        # IMMEDIATE: two kernels that open a new file at once must not both make the tables.
        connection.execute("BEGIN IMMEDIATE")
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if "meta" in tables:
            self._check_version(connection)
            # A read-only file is found out by a write alone.
            connection.execute("UPDATE meta SET value = value WHERE key = 'schema'")
        elif tables:
            raise StoreError(f"{self.path} is an SQLite file, but no run store. Give another path.")
        else:
            for statement in _SCHEMA.split(";")[:-1]:
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
        connection.execute("COMMIT")

    def _check_version(self, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT value FROM meta WHERE key='schema'").fetchone()
        if row is None or not str(row[0]).isdigit() or int(row[0]) > SCHEMA_VERSION:
            found = "none" if row is None else row[0]
            raise StoreError(
                f"{self.path} has store version {found}, and this scaling_nb reads up to "
                f"{SCHEMA_VERSION}. Upgrade scaling_nb, or use another file."
            )
