"""Reading a class's submissions: what can be read is read, and what is left out is said."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .submission import FIELDS

if TYPE_CHECKING:
    import pandas as pd

    Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | pd.DataFrame

_ENDINGS = (".csv", ".txt")
_NAMED = 8
"""Places that a sentence names one by one; of more it gives the number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a submission: its cells by name as text, and where it stands."""

    cells: Mapping[str, str]
    place: str

    def text(self, name: str) -> str:
        """Return a cell, empty where there is none."""
        return self.cells.get(name, "").strip()

    def number(self, name: str) -> float:
        """Return a cell as a number, NaN where it is none."""
        try:
            return float(self.text(name))
        except ValueError:
            return math.nan

    @property
    def whose(self) -> str:
        """The place, with the student's name where there is one."""
        student = self.text("student")
        return f"{self.place} ({student})" if student else self.place


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The lines of a game, a student's last alone, and a sentence for whatever is left out.

    Attributes
    ----------
    lines : tuple of (student, Line)
        Who gave no name is called "no name 1", "no name 2" and so on.
    left_out : tuple of str
    """

    lines: tuple[tuple[str, Line], ...]
    left_out: tuple[str, ...]


def collect(source: Source, *, seed: str, purse: float, recorded: str) -> Collected:
    """Return the lines of one game from files, folders of ``.csv`` and ``.txt``, or a table."""
    lines, left_out = _read(source)
    refused: dict[str, list[str]] = {}
    ours: list[Line] = []
    for line in lines:
        reason = _refusal(line, seed, purse, recorded)
        if reason:
            refused.setdefault(reason, []).append(line.whose)
        else:
            ours.append(line)
    left_out += [f"Left out, {reason}: {_listed(places)}." for reason, places in refused.items()]
    last: dict[str, Line] = {}
    replaced: dict[str, None] = {}
    nameless: dict[tuple[str, ...], Line] = {}
    for line in ours:
        student = line.text("student")
        if not student:
            # Many may have forgotten their name: they are one only where all they say is equal.
            nameless.setdefault(_choice(line), line)
            continue
        if student in last and _choice(last.pop(student)) != _choice(line):
            replaced[student] = None
        last[student] = line
    if replaced:
        left_out.append(f"Of more than one line the last counts: {_listed(list(replaced))}.")
    named = [*last.items(), *((f"no name {k}", x) for k, x in enumerate(nameless.values(), 1))]
    return Collected(lines=tuple(named), left_out=tuple(left_out))


def _refusal(line: Line, seed: str, purse: float, recorded: str) -> str:
    """Return why a line does not count; empty where it does."""
    n_params, its_purse = line.number("n_params"), line.number("purse")
    if not (math.isfinite(n_params) and n_params >= 1 and math.isfinite(its_purse)):
        return "for want of a number as n_params and purse"
    if line.text("seed") != seed:
        return f"of another word, {line.text('seed')!r}"
    if line.text("recorded") != recorded:
        return f"played with {line.text('recorded') or 'a hidden law'}"
    if not math.isclose(its_purse, purse, rel_tol=1e-9):
        return f"of another purse, {its_purse:g} FLOP"
    return ""


def _choice(line: Line) -> tuple[str, ...]:
    return tuple(line.text(name) for name in FIELDS)


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return ", ".join(words[:_NAMED]) + more


def _read(source: Source) -> tuple[list[Line], list[str]]:
    lines: list[Line] = []
    left_out: list[str] = []
    if not isinstance(source, str | os.PathLike | Sequence):
        return list(_table_lines(source)), left_out
    given = [source] if isinstance(source, str | os.PathLike) else source
    if not len(given):
        left_out.append("No file was named. Give the path of a CSV, or of a folder of them.")
    for path in map(Path, given):
        if path.is_dir():
            files = _files(path)
            if not files:
                left_out.append(f"The folder {path} has no .csv or .txt file.")
        else:
            files = [path]
        for file in files:
            try:
                found = list(_file_lines(file))
            except FileNotFoundError:
                left_out.append(f"There is no file {file}.")
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                why = getattr(error, "strerror", None) or "it is no text"
                left_out.append(f"{file} cannot be read: {why}.")
            else:
                lines += found
                if not found:
                    left_out.append(f"{file} has no line of a submission.")
    return lines, left_out


def _files(folder: Path) -> list[Path]:
    """Return a folder's files, the newest last: a browser names a second download by itself."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS]
    return sorted(found, key=lambda path: (path.stat().st_mtime, path.name))


def _file_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a file, with a header or, as they are copied from a chat, without."""
    text = path.read_text(encoding="utf-8-sig")
    separator = max(",;\t", key=text.partition("\n")[0].count)
    header: Sequence[str] = FIELDS
    reader = csv.reader(text.splitlines(), delimiter=separator)
    for row in reader:
        cells = [cell.strip() for cell in row]
        if "n_params" in cells:
            header = cells
        elif any(cells):
            if len(cells) != len(header):
                cells = _within(cells)
            if reader.line_num > 1 or len(cells) == len(header):
                place = f"line {reader.line_num} of {path.name}"
                yield Line(cells=dict(zip(header, cells, strict=False)), place=place)


def _within(cells: Sequence[str]) -> list[str]:
    """Return the submission that one cell holds, as in the table of a form's answers."""
    for cell in cells:
        inner = next(csv.reader([cell]), [])
        if len(inner) == len(FIELDS):
            return inner
    return list(cells)


def _table_lines(frame: pd.DataFrame) -> Iterator[Line]:
    for number, row in enumerate(frame.to_dict("records"), 1):
        cells = {
            str(name): "" if value is None or value != value else str(value)
            for name, value in row.items()
        }
        yield Line(cells=cells, place=f"row {number}")
