"""The run store: one SQLite file that holds plans, runs and training curves.

Curves are stored in chunks, two arrays a row; one writer thread commits what has gathered, at
least every half second. A run is stored under its content hash, so two plans in one file share
the runs they have in common.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .database import Database
from .disk import GONE, may_pass, remedy
from .errors import StoreError
from .plan import SweepPlan
from .records import Run

FLUSH_SECONDS = 0.3

Write = Callable[[sqlite3.Connection], object]
Fence = Callable[[sqlite3.Connection], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSweep:
    """A sweep as the store knows it.

    Attributes
    ----------
    plan : SweepPlan
    recipe_parts : mapping
        What the recipe's hash was made of, to say what differs when another recipe comes.
    """

    sweep_id: str
    plan: SweepPlan
    recipe_parts: Mapping[str, Any]


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


class RunStore:
    """Plans, runs and curves in one SQLite file (WAL).

    Thread-safe: writes are queued and return at once, one thread commits them in order; reads
    open their own connection and see what has been committed (:meth:`flush` waits for that).
    Several processes may read while one writes.

    Parameters
    ----------
    path : path-like
        Made if it does not exist, with its folder.

    Attributes
    ----------
    read_only : bool
        The file or its folder cannot be written: everything can be read, and nothing put.
    fence : function of a connection, or None
        Asked inside every transaction; where it says no, what has gathered is dropped. A process
        that was stopped, and whose sweep another has taken over, must not write when it wakes.

    Raises
    ------
    StoreError
        The file is no store, is of a newer version, or cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = Database(path)
        self.path = self._database.path
        self.read_only = self._database.read_only
        self.fence: Fence | None = None
        self.on_trouble: Callable[[str], object] = lambda message: None
        self._queue: queue.SimpleQueue[Write | threading.Event | None] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._trouble: Exception | None = None
        self._closed = False
        if self.read_only:
            return
        self._writer = threading.Thread(target=self._write_loop, name="run-store", daemon=True)
        self._writer.start()

    def connect(self) -> sqlite3.Connection:
        """Return a connection of the caller's own, in autocommit mode."""
        return self._database.connect()

    def save_sweep(
        self, plan: SweepPlan, recipe_parts: Mapping[str, Any], sweep_id: str = ""
    ) -> str:
        """Store a plan and what its recipe was made of; returns the sweep's identifier.

        Parameters
        ----------
        sweep_id : str
            That of the plan as it was first; a sweep keeps it when its plan changes. Empty: the
            plan's own.
        """
        sweep_id = sweep_id or plan.plan_id
        row = (sweep_id, _json(plan.to_dict()), _json(dict(recipe_parts)), time.time())
        self._put(
            lambda c: c.execute(
                "INSERT INTO sweeps (sweep_id, plan, recipe, created) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET created = excluded.created, plan = excluded.plan",
                row,
            )
        )
        return sweep_id

    def load_sweep(self) -> StoredSweep | None:
        """Return the sweep that was started last, or None."""
        sweeps = self._sweeps("ORDER BY created DESC, rowid DESC LIMIT 1")
        return sweeps[0] if sweeps else None

    def find_sweep(self, plan_id: str) -> StoredSweep | None:
        """Return the sweep of a plan, by how the plan was first or by how it is now; or None."""
        if found := self._sweeps("WHERE sweep_id = ?", plan_id):
            return found[0]
        sweeps = self._sweeps("ORDER BY created DESC, rowid DESC")
        return next((sweep for sweep in sweeps if sweep.plan.plan_id == plan_id), None)

    def _sweeps(self, which: str, *parameters: object) -> list[StoredSweep]:
        rows = self.read(f"SELECT sweep_id, plan, recipe FROM sweeps {which}", *parameters)
        with self._intact("a plan"):
            return [
                StoredSweep(
                    sweep_id=sweep_id,
                    plan=SweepPlan.from_dict(json.loads(plan)),
                    recipe_parts=json.loads(recipe),
                )
                for sweep_id, plan, recipe in rows
            ]

    @contextlib.contextmanager
    def _intact(self, what: str) -> Iterator[None]:
        """Say what a row that SQLite can read, and nobody else, means."""
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"{self.path} is damaged: {what} in it cannot be read ({error}). "
                f"python -m scaling_nb recover {self.path} salvages the rest."
            ) from error

    def put_run(self, run: Run) -> None:
        """Store how a run ended, in place of what was known of it."""
        row = (run.run_id, _json(asdict(run)), time.time())
        self._put(
            lambda c: c.execute(
                "INSERT INTO runs (run_id, result, updated) VALUES (?, ?, ?) ON CONFLICT "
                "DO UPDATE SET result = excluded.result, updated = excluded.updated",
                row,
            )
        )

    def forget_run(self, run_id: str) -> None:
        """Forget how a run ended: it is trained again."""
        self._put(lambda c: c.execute("DELETE FROM runs WHERE run_id = ?", (run_id,)))

    def runs(self) -> dict[str, Run]:
        """Return every run that has ended, by run_id."""
        rows = self.read("SELECT run_id, result FROM runs")
        with self._intact("a run"):
            return {run_id: Run(**json.loads(result)) for run_id, result in rows}

    def put_note(self, key: str, value: Mapping[str, Any]) -> None:
        """Store a small JSON-ready mapping under a name."""
        row = (f"note {key}", _json(dict(value)))
        self._put(
            lambda c: c.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", row)
        )

    def note(self, key: str) -> dict[str, Any] | None:
        """Return what :meth:`put_note` stored, or None."""
        rows = self.read("SELECT value FROM meta WHERE key = ?", f"note {key}")
        with self._intact(f"the note {key!r}"):
            return dict(json.loads(rows[0][0])) if rows else None

    def append(self, run_id: str, tokens: NDArray[np.int64], loss: NDArray[np.float32]) -> None:
        """Add points to a run's curve, both of shape (n_points,)."""
        row = (
            run_id,
            len(tokens),
            np.ascontiguousarray(tokens, dtype="<i8").tobytes(),
            np.ascontiguousarray(loss, dtype="<f4").tobytes(),
        )
        self._put(
            lambda c: c.execute(
                "INSERT INTO chunks (run_id, n, tokens, loss) VALUES (?, ?, ?, ?)", row
            )
        )

    def clear_curve(self, run_id: str) -> None:
        """Forget a run's curve: the run starts again."""
        self._put(lambda c: c.execute("DELETE FROM chunks WHERE run_id = ?", (run_id,)))

    def curve(self, run_id: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return a run's training curve so far: (tokens, loss), each of shape (n_points,)."""
        rows = self.read("SELECT tokens, loss FROM chunks WHERE run_id = ? ORDER BY id", run_id)
        with self._intact(f"the curve of run {run_id}"):
            tokens = np.frombuffer(b"".join(row[0] for row in rows), dtype="<i8")
            return tokens, np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")

    def curve_sizes(self) -> list[tuple[str, int, int]]:
        """Return (run_id, first chunk, number of points) of each curve."""
        return self.read("SELECT run_id, min(id), sum(n) FROM chunks GROUP BY run_id")

    def read(self, query: str, *parameters: object) -> list[Any]:
        """Return the rows of a query over what has been committed.

        Raises
        ------
        StoreError
            The file cannot be read; says how to salvage it if it is damaged.
        """
        try:
            connection = self.connect()
            try:
                return connection.execute(query, parameters).fetchall()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path} cannot be read: {error}.{remedy(self.path, error)}"
            ) from (error)

    def check_writable(self) -> None:
        """Raise `StoreError` where nothing can be put."""
        if self.read_only:
            raise StoreError(
                f"{self.path} cannot be written by this process: its runs can be seen, and none "
                "trained. Copy it to a folder that can be written, and open the copy."
            )

    def _put(self, write: Write) -> None:
        self.check_writable()
        if self._closed:
            raise StoreError(f"{self.path} is closed. Open it again with RunStore(path).")
        self._raise_failure()
        self._queue.put(write)

    @property
    def trouble(self) -> str:
        """Why nothing can be saved for now; what has gathered is kept in memory. Else empty."""
        return "" if self._trouble is None else f"{self.path} cannot be written: {self._trouble}"

    @property
    def trouble_remedy(self) -> str:
        """What ends the trouble, before it is tried again."""
        return "Put it back" if self._trouble is GONE else "Make room"

    def flush(self) -> None:
        """Wait until everything put so far is committed; raise `StoreError` if it cannot be.

        Where the disk was full, this tries again.
        """
        if not self._closed and not self.read_only:
            done = threading.Event()
            self._queue.put(done)
            done.wait()
        self._raise_failure()
        if self._trouble is not None:
            raise StoreError(
                f"{self.trouble}. {self.trouble_remedy}, then try again."
            ) from self._trouble

    def close(self) -> None:
        """Commit what is left and stop the writer; a second call does nothing."""
        if not self._closed:
            self._closed = True
            if not self.read_only:
                self._queue.put(None)
                self._writer.join()
        self._raise_failure()
        if self._trouble is not None:
            raise StoreError(f"{self.trouble}. What was not saved is lost.") from self._trouble

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _raise_failure(self) -> None:
        if self._error is not None:
            raise StoreError(f"{self.path} cannot be written: {self._error}.") from self._error

    def _write_loop(self) -> None:
        connection = self.connect()
        unsaved: list[Write] = []
        open_ended = True
        while open_ended:
            batch, waiting, open_ended = self._gather()
            unsaved += batch
            # In trouble every piece of a curve would try again; whoever flushes or closes does.
            if unsaved and (self._trouble is None or waiting or not open_ended):
                self._save(connection, unsaved)
            for done in waiting:
                done.set()
        connection.close()

    def _save(self, connection: sqlite3.Connection, unsaved: list[Write]) -> None:
        """Commit and empty `unsaved`; where the disk does not take it, keep it and tell."""
        if self._error is not None:
            unsaved.clear()
            return
        try:
            if self._database.gone:
                raise GONE
            connection.execute("BEGIN IMMEDIATE")
            if self.fence is None or self.fence(connection):
                for write in unsaved:
                    write(connection)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if not may_pass(error):
                self._error = error
                return
            self._trouble = error
            self.on_trouble(self.trouble)
        else:
            unsaved.clear()
            self._trouble = None

    def _gather(self) -> tuple[list[Write], list[threading.Event], bool]:
        """Take what comes within `FLUSH_SECONDS`; at once where somebody waits or closes."""
        batch: list[Write] = []
        # From the first write on: a steady stream of them must not put the commit off.
        deadline = math.inf
        while True:
            left = None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())
            try:
                item = self._queue.get(timeout=left)
            except queue.Empty:
                return batch, [], True
            if item is None:
                return batch, [], False
            if isinstance(item, threading.Event):
                return batch, [item], True
            batch.append(item)
            deadline = min(deadline, time.monotonic() + FLUSH_SECONDS)
            if len(batch) >= 256:
                return batch, [], True
