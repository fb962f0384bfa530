"""From a raw table to columns a fit can take: nothing is dropped, everything is said.

A row that cannot be fitted stays, with the reason and its line number.
"""

from __future__ import annotations

import csv
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .columns import (
    ALIASES,
    TEXT,
    TOKENS,
    UNIT_COLUMN,
    UNITS,
    Columns,
    check_units,
    decimal_mark,
    match_columns,
    to_floats,
    to_texts,
    unit_said,
)
from .errors import RunsError

if TYPE_CHECKING:
    import os

    import pandas as pd

_MISSING = ["", "NA", "N/A", "na", "n/a", "nan", "NaN", "NAN", "null", "NULL", "None", "none"]
_FINISHED = frozenset(
    {"", "finished", "completed", "complete", "done", "success", "succeeded", "ok", "true"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What became of a raw table: clean columns, notes on what was assumed, and complaints.

    Attributes
    ----------
    columns : dict of str to ndarray, shape (n_rows,)
        Every known column, then the table's own others.
    notes : tuple of str
        What was assumed on the way and what is doubtful; shown with the table.
    complaints : tuple of str
        What the person should look at; each becomes a warning.
    unit : str
        What D counts.
    """

    columns: Columns
    notes: tuple[str, ...]
    complaints: tuple[str, ...]
    unit: str


def read_csv(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a CSV with commas, semicolons or tabs; floats exactly, known text columns as text.

    Where semicolons or tabs separate, "3,21" is read as 3.21, as spreadsheets write it.

    Blank lines are left out; the index still counts them, so that line numbers are the file's.

    Raises
    ------
    RunsError
        If the file is empty or no table.
    """
    import pandas as pd

    unreadable = (pd.errors.EmptyDataError, pd.errors.ParserError, pd.errors.ParserWarning)
    options: dict[str, Any] = {"encoding": "utf-8-sig"}
    if int(pd.__version__.split(".")[0]) < 3:  # later versions are exact by default
        options["float_precision"] = "round_trip"
    try:
        for separator in (",", ";", "\t"):
            header = pd.read_csv(path, sep=separator, nrows=0, encoding="utf-8-sig")
            if len(header.columns) > 1:
                break
        chosen = match_columns([str(c) for c in header.columns], ambiguous_ok=True)
        text = [name for known, name in chosen.items() if known in TEXT]
        options |= {
            "sep": separator,
            "index_col": False,
            "dtype": dict.fromkeys(text, str),
            "keep_default_na": False,
            "na_values": {str(c): [] if c in text else _MISSING for c in header.columns},
            "skip_blank_lines": False,
            "low_memory": False,
        }
        with warnings.catch_warnings():
            # A row longer than the header would be cut off with no more than this warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame: pd.DataFrame = pd.read_csv(path, **options)
            if separator != "," and (mark := _decimal_mark(path, frame, text, options)):
                frame = pd.read_csv(path, **options | mark)
    except UnicodeDecodeError as error:
        raise RunsError(
            f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}). Save it as "
            "'CSV UTF-8', or read it yourself and use RunTable.from_frame."
        ) from error
    except unreadable as error:
        raise RunsError(
            f"{path} is no CSV of runs: {str(error).strip().rstrip('.')}. It needs a header line "
            "with N, D and loss, and one line of as many values for each run."
        ) from error
    frame.index = pd.Index(_lines(path, separator, len(frame)))
    some = frame.notna() & (frame != "")
    return frame[some.any(axis=1)]


def _lines(path: str | os.PathLike[str], separator: str, n_rows: int) -> Sequence[int]:
    """Return each row's line in the file, counted from the line after the header.

    A quoted cell may hold line breaks, so that a row is not a line.
    """
    with open(path, "rb") as file:
        ends = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    if ends <= n_rows + 1:
        return range(n_rows)
    with open(path, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=separator)
        next(reader)
        starts = [reader.line_num - 1]
        starts += [reader.line_num - 1 for _ in reader]
    return starts[:n_rows]


def _decimal_mark(
    path: str | os.PathLike[str], frame: pd.DataFrame, text: Sequence[str], options: dict[str, Any]
) -> dict[str, str]:
    """Return how numbers are written, where a comma does not separate the columns."""
    import pandas as pd

    names = set(match_columns([str(c) for c in frame.columns], ambiguous_ok=True).values())
    numeric = [c for c in frame.columns if str(c) in names and c not in text]
    if all(pd.api.types.is_numeric_dtype(frame[c]) for c in numeric):
        return {}
    raw = pd.read_csv(path, **options | {"dtype": str, "usecols": numeric})
    return decimal_mark(cell for c in numeric for cell in raw[c].dropna())


def read_frame(
    frame: pd.DataFrame,
    given: Mapping[str, str] | None = None,
    *,
    unit: str | None = None,
    first_line: int | None = None,
) -> Reading:
    """Bring a raw table into this package's columns and units.

    Parameters
    ----------
    frame : DataFrame
    given : mapping of str to str
        Known column to header, for headers that no alias covers.
    unit : str or None
        What D counts; None: what the column ``D_unit`` says, else tokens.
    first_line : int or None
        Line number of the first row in its file; None: rows are counted from 0.

    Raises
    ------
    RunsError
        If N, D or loss cannot be had, a name is ambiguous, no row can be used, or rows differ in
        what D counts.
    """
    names = match_columns([str(c) for c in frame.columns], given)
    frame = frame.set_axis([str(c) for c in frame.columns], axis=1)
    columns: Columns = {}
    for known in ALIASES:
        if known not in names:
            continue
        raw = frame[names[known]]
        columns[known] = to_texts(raw) if known in TEXT else to_floats(raw)
    notes = _complete(columns, frame, names)
    places = [f"row {i}" for i in frame.index]
    if first_line is not None:
        places = [f"line {i + first_line}" for i in frame.index]
    complaints = _mark_unusable(columns, "excluded" in names, places)
    if "seed" not in names:
        notes += _number_seeds(columns)
    telling = [c for c in frame.columns if c.strip().lower() == UNIT_COLUMN.lower()]
    said = unit_said(frame[telling[0]]) if telling and unit is None else TOKENS
    unit = said if unit is None else unit
    doubts = check_units(columns, unit)
    extra = {
        f"given_{c}" if c in ALIASES else c: frame[c].to_numpy()
        for c in frame.columns
        if c not in (*names.values(), *telling)
    }
    ordered = {known: columns[known] for known in ALIASES}
    return Reading(
        columns=ordered | extra,
        notes=(*notes, *doubts),
        complaints=(*complaints, *doubts),
        unit=unit,
    )


def _complete(columns: Columns, frame: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    """Fill in the columns that the table lacks; return what was assumed."""
    notes = []
    missing = [known for known in UNITS if known not in columns]
    if "loss" in missing or len(missing) > 1:
        lacking = " and ".join(f"{known} ({UNITS[known]})" for known in missing if known != "C")
        wanted = next(known for known in missing if known != "C")
        raise RunsError(
            f"the table has no column for {lacking}. Its columns are "
            f"{', '.join(map(str, frame.columns)) or 'none'}. Rename one, or pass "
            f"columns={{{wanted!r}: 'your column'}}."
        )
    if missing:
        known = missing[0]
        with np.errstate(all="ignore"):
            if known == "C":
                columns["C"] = 6.0 * columns["N"] * columns["D"]
                notes.append("There is no column for compute: C = 6·N·D.")
            else:
                other = "D" if known == "N" else "N"
                columns[known] = columns["C"] / (6.0 * columns[other])
                notes.append(f"There is no column for {known}: {known} = C / 6{other}.")
    for known in ALIASES:
        if known not in columns:
            default: Any = "" if known in TEXT else math.nan
            columns[known] = np.full(len(frame), default, dtype=object if known in TEXT else float)
    columns["run_id"] = _unique_ids(columns["run_id"])
    finished = np.isin(np.char.lower(columns["status"].astype(str)), list(_FINISHED))
    columns["status"][finished] = "finished"
    return notes


def _number_seeds(columns: Columns) -> list[str]:
    """Give rows that repeat another's N and D a seed; what does not count is no seed."""
    import pandas as pd

    keys = ["N", "D", "budget", "lr", "unique_tokens"]
    counts = columns["excluded"] == ""
    cells = pd.DataFrame({key: columns[key][counts] for key in keys}).groupby(keys, dropna=False)
    repeats = cells.cumcount().to_numpy()
    if not repeats.any():
        return []
    seeds = np.full(len(counts), math.nan)
    seeds[counts] = repeats
    columns["seed"] = seeds
    n = np.count_nonzero(repeats)
    return [f"{n} row(s) repeat another's N and D as read, and count as seeds."]


def _unique_ids(ids: NDArray[Any]) -> NDArray[Any]:
    """Return `ids` with empty ones named by position and repeated ones numbered."""
    named: list[str] = ids.tolist()
    width = len(str(len(named)))
    named = [name or f"run-{i:0{width}d}" for i, name in enumerate(named)]
    taken = set(named)
    if len(taken) < len(named):
        seen: set[str] = set()
        for i, name in enumerate(named):
            numbered = (f"{name}#{k}" for k in itertools.count(2))
            unique = name
            while unique in seen:
                unique = next(new for new in numbered if new not in taken)
            seen.add(unique)
            named[i] = unique
    return np.array(named, dtype=object)


def _mark_unusable(columns: Columns, has_marks: bool, places: Sequence[str]) -> list[str]:
    """Give each row that cannot be fitted its reason; return one complaint for all of them."""
    marks = columns["excluded"]
    reasons = np.full(len(marks), "", dtype=object)
    status = columns["status"]
    for i in np.flatnonzero(status != "finished"):
        reasons[i] = f"status is {status[i]}"
    for known in UNITS:
        values = columns[known]
        for i in np.flatnonzero(~(np.isfinite(values) & (values > 0)) & (reasons == "")):
            what = "infinite" if np.isinf(values[i]) else f"{values[i]:g}, not positive"
            reasons[i] = f"{known} is {'missing or no number' if np.isnan(values[i]) else what}"
    fresh = np.flatnonzero((marks == "") & (reasons != ""))
    for k in fresh.tolist():
        marks[k] = f"{reasons[k]} ({places[k]})"
    if len(marks) == 0 or (not has_marks and (marks != "").all()):
        first = f" The first: {marks[0]}." if len(marks) else ""
        raise RunsError(
            f"none of the {len(marks)} rows can be used.{first} A row needs N, D and loss "
            "positive and finite, and status finished or no status column."
        )
    if not len(fresh):
        return []
    shown = "; ".join(marks[i] for i in fresh[:5])
    more = f"; and {len(fresh) - 5} more" if len(fresh) > 5 else ""
    return [
        f"{len(fresh)} of {len(marks)} rows are kept but left out of every fit: {shown}{more}. "
        "`runs.exclusions` lists them all."
    ]
