"""What a student committed to, as a line that travels."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a student committed to.

    Attributes
    ----------
    student : str
    seed : str
        Of the game.
    recorded : str
        Name of the recorded sweep that was played with; empty where a hidden law was.
    purse, spent : float, FLOP
    n_runs : int
    target : float, FLOP
        The budget predicted for.
    n_params, n_tokens : float
        The choice: N, and the D that the target pays for.
    loss : float, nats per token
        Predicted; NaN where the student named none.
    """

    student: str
    seed: str
    recorded: str = ""
    purse: float
    spent: float
    n_runs: int
    target: float
    n_params: float
    n_tokens: float
    loss: float

    @property
    def line(self) -> str:
        """One line of a CSV, to be copied into a form or a chat; the lecturer's view reads it."""
        return _csv_line(asdict(self).values())

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Append the line to a CSV of submissions; a header is written before the first."""
        new = not Path(path).exists()
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{HEADER}\n{self.line}\n" if new else f"{self.line}\n")


def _csv_line(cells: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


FIELDS = tuple(field.name for field in fields(Submission))
HEADER = ",".join(FIELDS)
