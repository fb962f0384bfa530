"""Sweeps that this project itself trained, with how: real runs without training.

Each is a CSV beside a JSON of its provenance, under ``recorded/``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from .errors import RunsError
from .records import RunTable

_FOLDER = files(__package__).joinpath("recorded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recorded sweep: where its runs come from.

    Attributes
    ----------
    name : str
    about : str
        What was trained on what, in one sentence.
    command : str
        What was run; it can be run again.
    recipe : mapping
        Model, widths, data, budgets, seeds, schedule.
    machine : str
        Kind of machine.
    date : str
        ISO date of the end of the sweep.
    versions : mapping of str to str
        Python and the libraries that decide the numbers.
    commit, executor : str
        What was checked out, and how runs were trained; empty in recordings made before these
        were noted.
    """

    name: str
    about: str
    command: str
    recipe: Mapping[str, Any]
    machine: str
    date: str
    versions: Mapping[str, str]
    commit: str = ""
    executor: str = ""

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.name}: {self.about} {self.command}; {self.machine}, {self.date}; {versions}"


def recordings() -> dict[str, Recording]:
    """Return every recorded sweep by name, with its provenance."""
    pages = (path for path in _FOLDER.iterdir() if path.name.endswith(".json"))
    found = [Recording(**json.loads(page.read_text(encoding="utf-8"))) for page in pages]
    return {recording.name: recording for recording in sorted(found, key=lambda r: r.name)}


def recorded(name: str) -> RunTable:
    """Return the runs of a recorded sweep, such as ``"stdlib-gpt"``.

    Its provenance stands in the table's ``notes``.

    Raises
    ------
    RunsError
        If there is no sweep of that name; lists those there are.
    """
    known = recordings()
    if name not in known:
        raise RunsError(f"no sweep is recorded as {name!r}. There are: {', '.join(known)}.")
    from dataclasses import replace
    from importlib.resources import as_file

    with as_file(_FOLDER.joinpath(f"{name}.csv")) as path:
        table = RunTable.from_csv(path)
    return replace(table, notes=(*table.notes, str(known[name])))
