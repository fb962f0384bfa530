"""Who trains in a store: one sweep at a time, by a lease with a heartbeat.

A process that dies leaves its lease behind; it is taken over at once where the process can be
seen to be gone, and after :data:`STALE_SECONDS` without a heartbeat where it cannot.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from .errors import StoreError
from .status import SweepState
from .store import RunStore

BEAT_SECONDS = 2.0
STALE_SECONDS = 20.0

_TABLE = """CREATE TABLE IF NOT EXISTS lease (
    one INTEGER PRIMARY KEY CHECK (one = 1), owner TEXT NOT NULL, pid INTEGER NOT NULL,
    host TEXT NOT NULL, sweep_id TEXT NOT NULL, state TEXT NOT NULL, beat REAL NOT NULL)"""
_COLUMNS = "owner, pid, host, sweep_id, state, beat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lease, as the store says.

    Attributes
    ----------
    owner : str
        Unique to one sweep object.
    pid, host : int, str
    sweep_id : str
    state : str
        Of the sweep, at the last heartbeat.
    beat : float, seconds since the epoch
    """

    owner: str
    pid: int
    host: str
    sweep_id: str
    state: SweepState
    beat: float

    @property
    def alive(self) -> bool:
        """Whether the holder still trains, as far as can be seen from here."""
        if self.host == socket.gethostname() and not psutil.pid_exists(self.pid):
            return False
        return time.time() - self.beat < STALE_SECONDS

    def __str__(self) -> str:
        where = "this machine" if self.host == socket.gethostname() else self.host
        return f"process {self.pid} on {where}"


def current_holder(store: RunStore) -> Holder | None:
    """Return who trains in a store now, or None."""
    try:
        rows = store.read(f"SELECT {_COLUMNS} FROM lease")
    except OSError:
        return None  # no lease was ever taken
    holder = _holder(rows[0]) if rows else None
    return holder if holder is not None and holder.alive else None


def left_behind(store: RunStore) -> bool:
    """Whether the last trainer of a store went without letting go: killed, or its machine died."""
    try:
        rows = store.read(f"SELECT {_COLUMNS} FROM lease")
    except OSError:
        return False
    return bool(rows) and not _holder(rows[0]).alive


class Lease:
    """One sweep's claim to train in a store. Thread-safe.

    While it is held, every transaction of the store first asks whether it still is: a process
    that was stopped for long, and taken over, writes nothing when it wakes.

    Parameters
    ----------
    store : RunStore
    sweep_id : str
    state : function
        Returns the sweep's state, for those who watch.
    on_lost : function
        Called, on a thread of the lease or of the store, when another process has taken over.
    """

    def __init__(
        self,
        store: RunStore,
        sweep_id: str,
        *,
        state: Callable[[], SweepState],
        on_lost: Callable[[], object],
    ) -> None:
        self.owner = uuid.uuid4().hex
        self.sweep_id = sweep_id
        self._store = store
        self._state, self._on_lost = state, on_lost
        self._end = threading.Event()
        self._lost = threading.Event()

    @property
    def lost(self) -> bool:
        """Whether another process has taken it since it was acquired."""
        return self._lost.is_set()

    def acquire(self) -> Holder | None:
        """Take the lease and keep it; returns the live holder where there is one.

        Raises
        ------
        StoreError
            The store cannot be written.
        """
        self._store.check_writable()
        try:
            holder = self._take()
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._store.path} cannot be written: {error}. Make room or ask for leave to "
                "write there, then start() again."
            ) from error
        if holder is not None:
            return holder
        self._end.clear()
        self._lost.clear()
        self._store.fence = self._holds
        threading.Thread(target=self._beat, name="lease", daemon=True).start()
        return None

    def _take(self) -> Holder | None:
        with self._transaction() as connection:
            connection.execute(_TABLE)
            row = connection.execute(f"SELECT {_COLUMNS} FROM lease").fetchone()
            holder = _holder(row) if row else None
            if holder is not None and holder.owner != self.owner and holder.alive:
                return holder
            connection.execute(
                f"INSERT OR REPLACE INTO lease (one, {_COLUMNS}) VALUES (1, ?, ?, ?, ?, ?, ?)",
                (self.owner, os.getpid(), socket.gethostname(), self.sweep_id)
                + ("running", time.time()),
            )
        return None

    def _holds(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT owner FROM lease").fetchone()
        if row is not None and row[0] == self.owner:
            return True
        self._lose()
        return False

    def _lose(self) -> None:
        self._end.set()
        if not self._lost.is_set():
            self._lost.set()
            self._on_lost()

    def release(self) -> None:
        """Let others train; a second call does nothing."""
        self._end.set()
        if self._store.fence == self._holds:
            self._store.fence = None
        with contextlib.suppress(sqlite3.Error), self._transaction() as connection:
            connection.execute("DELETE FROM lease WHERE owner = ?", (self.owner,))

    def _beat(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            # A full disk stops the sweep by itself; the lease then goes stale, as it should.
            with contextlib.suppress(sqlite3.Error), self._transaction() as connection:
                mine = connection.execute(
                    "UPDATE lease SET beat = ?, state = ? WHERE owner = ?",
                    (time.time(), self._state(), self.owner),
                ).rowcount
                if not mine:
                    self._lose()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._store.connect()
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()


def _holder(row: tuple[str, int, str, str, SweepState, float]) -> Holder:
    owner, pid, host, sweep_id, state, beat = row
    return Holder(owner=owner, pid=pid, host=host, sweep_id=sweep_id, state=state, beat=beat)
