"""Salvaging a damaged run store: every row that can still be read goes into a new file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import StoreError
from .plan import SweepPlan
from .records import Run
from .store import RunStore

_COLUMNS = {
    "sweeps": ("sweep_id", "plan", "recipe", "created"),
    "runs": ("run_id", "result", "updated"),
    "chunks": ("run_id", "n", "tokens", "loss"),
}
_MAGIC = b"SQLite format 3\x00"
_GIVE_UP_AFTER = 1000
"""Row numbers that are tried one by one behind a damaged page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage:
    """What came out of a damaged store.

    Attributes
    ----------
    path : Path
        The new store.
    rows : dict of str to int
        Rows read, by table: plans, runs, pieces of curves.
    """

    path: Path
    rows: dict[str, int]

    def __str__(self) -> str:
        return (
            f"{self.path} holds {self.rows['runs']} runs, {self.rows['sweeps']} plans and "
            f"{self.rows['chunks']} pieces of curves"
        )


def salvage(damaged: Path, into: Path) -> Salvage:
    """Copy what is readable of a damaged store into a new one; the damaged file is not changed.

    Raises
    ------
    StoreError
        There is no such file, `into` exists, or nothing could be read.
    """
    if not damaged.is_file():
        raise StoreError(f"there is no file {damaged}. Give the path of the damaged store.")
    if into.exists():
        raise StoreError(f"{into} exists already. Give another path with --into.")
    source = into.with_suffix(".damaged-copy")
    _copy(damaged, source)
    try:
        rows = {
            table: [row for row in _rows(source, table) if _is_sound(table, row)]
            for table in _COLUMNS
        }
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{source}{suffix}").unlink(missing_ok=True)
    if not any(rows.values()):
        raise StoreError(
            f"nothing in {damaged} can be read. If there is a backup, use it; else train again."
        )
    RunStore(into).close()
    target = sqlite3.connect(into)
    for table, names in _COLUMNS.items():
        marks = ", ".join("?" * len(names))
        target.executemany(
            f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({marks})", rows[table]
        )
    target.commit()
    target.close()
    return Salvage(path=into, rows={table: len(found) for table, found in rows.items()})


def _is_sound(table: str, row: tuple[Any, ...]) -> bool:
    """Whether a row that SQLite could read is one that the store can."""
    try:
        match table:
            case "runs":
                return bool(Run(**json.loads(row[1])).run_id == row[0])
            case "sweeps":
                return bool(SweepPlan.from_dict(json.loads(row[1])).runs) and bool(
                    json.loads(row[2])
                )
            case _:
                run_id, n, tokens, loss = row
                return bool(run_id) and len(tokens) == 8 * n and len(loss) == 4 * n
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


def _copy(damaged: Path, to: Path) -> None:
    data = bytearray(damaged.read_bytes())
    data[: len(_MAGIC)] = _MAGIC
    to.write_bytes(data)
    log = Path(f"{damaged}-wal")
    if log.exists():
        Path(f"{to}-wal").write_bytes(log.read_bytes())


def _rows(path: Path, table: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows that can be read, in order; past damage they are looked for by number."""
    names = ", ".join(_COLUMNS[table])
    query = f"SELECT rowid, {names} FROM {table} NOT INDEXED WHERE rowid > ? ORDER BY rowid"
    connection = sqlite3.connect(path, isolation_level=None)
    # Text that is damaged must not end the search.
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    last, missed = 0, 0
    try:
        while missed < _GIVE_UP_AFTER:
            try:
                for number, *row in connection.execute(query, (last,)):
                    last, missed = number, 0
                    yield tuple(row)
                return
            except sqlite3.Error:
                last += 1
                missed += 1
    finally:
        connection.close()
