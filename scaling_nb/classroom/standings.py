"""The verdicts on a class, with what was left out, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Standings:
    """The verdicts on a class, best first, and a sentence for whatever was left out."""

    verdicts: tuple[Verdict, ...]
    left_out: tuple[str, ...]


def table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return one row a student, with what the choice reaches, its regret and its score."""
    import pandas as pd

    rows: list[dict[str, Any]] = [
        {
            **asdict(verdict.submission),
            "reached": verdict.loss,
            "regret": verdict.regret,
            "score": verdict.score,
        }
        for verdict in verdicts
    ]
    return pd.DataFrame(rows)
