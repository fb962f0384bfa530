"""What a student committed to, and reading many of them from CSV files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ScalingWarning

if TYPE_CHECKING:
    import pandas as pd

_NEEDED = ("student", "seed", "purse", "n_params")


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

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Append one line to a CSV of submissions; the header is written with the first."""
        import pandas as pd

        new = not Path(path).exists()
        pd.DataFrame([asdict(self)]).to_csv(path, mode="a", header=new, index=False)


def read_submissions(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | pd.DataFrame,
) -> pd.DataFrame:
    """Return all usable rows of CSV files as text and numbers; names the rows that are not.

    Warns
    -----
    ScalingWarning
        Of rows without a student's choice of at least one parameter, which are left out.
    """
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        frame = source.copy()
    else:
        paths = [source] if isinstance(source, str | os.PathLike) else source
        frame = pd.concat(
            [pd.read_csv(path, dtype=str, on_bad_lines="warn") for path in paths], ignore_index=True
        )
    for name in (*_NEEDED, "recorded", "spent", "n_runs", "loss"):
        if name not in frame:
            frame[name] = "" if name in ("student", "seed", "recorded") else np.nan
    for name in ("purse", "spent", "n_runs", "n_params", "loss"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    for name in ("student", "seed", "recorded"):
        frame[name] = frame[name].fillna("").astype(str)
    good = np.isfinite(frame["n_params"]) & (frame["n_params"] >= 1) & np.isfinite(frame["purse"])
    if not good.all():
        whose = ", ".join(
            f"{row + 1} ({frame['student'].iloc[row] or 'no name'})"
            for row in np.flatnonzero(~good)
        )
        warnings.warn(
            f"submissions left out, for want of a number as n_params and purse: rows {whose}.",
            ScalingWarning,
            stacklevel=3,
        )
    usable: pd.DataFrame = frame[good]
    return usable
