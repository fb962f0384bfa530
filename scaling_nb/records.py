"""The bridge between training and analysis: what a run was to be, and what came of it.

Both wings know this module and nothing of each other. Units everywhere: N in parameters, D in
tokens, or in what else :attr:`RunTable.unit` names, C in FLOP, loss in nats per token.
"""

from __future__ import annotations

import hashlib
import html
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .budgets import infer_budgets
from .columns import TEXT, TOKENS, UNIT_COLUMN, checked_unit, loss_unit, select, summary
from .errors import RunsError, ScalingWarning
from .flops import CONVENTIONS, Convention, check_convention
from .reading import Reading, read_csv, read_frame
from .run_spec import RunSpec, content_hash

if TYPE_CHECKING:
    import os

    import pandas as pd

__all__ = [
    "COLUMNS",
    "TOKENS",
    "Run",
    "RunSpec",
    "RunTable",
    "Status",
    "checked_unit",
    "content_hash",
    "loss_unit",
]

Status = Literal[
    "queued", "running", "paused", "finished", "diverged", "failed", "cancelled", "skipped"
]
"""A run's state. Only ``finished`` runs have a held-out loss that a law may be fitted to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run as it ended, or stands: what was trained, and the held-out loss it reached.

    Attributes
    ----------
    N : float, parameters
    D : float, tokens
        Tokens the run *saw* (counted, not assumed).
    C : float, FLOP
        Compute the run *spent*.
    loss : float, nats per token
        Held-out loss at the end of the run; NaN until finished.
    budget : float, FLOP
        IsoFLOP budget the run belongs to; NaN where there is none.
    group : str
        Runs of equal group share their noise (one training trunk); empty where unknown.
    excluded : str
        Reason why a fit leaves this run out; empty for a run that counts.
    """

    run_id: str
    N: float
    D: float
    C: float
    loss: float
    budget: float = math.nan
    seed: float = math.nan
    size: float = math.nan
    status: str = "finished"
    group: str = ""
    n_total: float = math.nan
    n_non_embedding: float = math.nan
    n_matmul: float = math.nan
    unique_tokens: float = math.nan
    lr: float = math.nan
    schedule: str = ""
    seconds: float = math.nan
    message: str = ""
    excluded: str = ""


COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(Run))
"""Columns of a run table, in the order they are written."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class RunTable:
    """Runs as columns, frozen: the one thing every fit takes.

    ``len(table)`` and the arrays ``N, D, C, L`` speak of the runs that count; excluded runs
    stay in the table with their reason and come back with :meth:`restore`.

    Attributes
    ----------
    columns : mapping of str to ndarray, shape (n_rows,)
        All rows, excluded ones too; keys are at least :data:`COLUMNS`.
    notes : tuple of str
        What was assumed when the table was read, such as C = 6·N·D.
    unit : str
        What D counts: "tokens", or another plural such as "samples", "images" or "patches".
    included : ndarray of bool, shape (n_rows,)
        True for each row that counts.
    """

    columns: Mapping[str, NDArray[Any]] = field(repr=False)
    notes: tuple[str, ...] = ()
    unit: str = TOKENS
    included: NDArray[np.bool_] = field(init=False)
    _counted: dict[str, NDArray[Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", checked_unit(self.unit))
        frozen = {}
        for name, values in self.columns.items():
            values = np.asarray(values, dtype=object if name in TEXT else None).copy()
            values.flags.writeable = False
            frozen[name] = values
        counts = np.asarray(frozen["excluded"] == "", dtype=bool)
        counts.flags.writeable = False
        object.__setattr__(self, "columns", MappingProxyType(frozen))
        object.__setattr__(self, "included", counts)
        # A fit reads some columns a dozen times.
        object.__setattr__(self, "_counted", dict(frozen) if counts.all() else {})

    def __reduce__(self) -> tuple[Any, ...]:
        # The read-only view of the columns does not pickle.
        columns = dict(self.columns)
        return partial(type(self), columns=columns, notes=self.notes, unit=self.unit), ()

    @classmethod
    def from_runs(cls, runs: Iterable[Run], *, unit: str = TOKENS) -> Self:
        """Build a table from :class:`Run` records, whose D counts `unit`."""
        rows = list(runs)
        return cls(
            columns={
                name: np.array(
                    [getattr(run, name) for run in rows], dtype=object if name in TEXT else float
                )
                for name in COLUMNS
            },
            unit=unit,
        )

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        columns: Mapping[str, str] | None = None,
        unit: str | None = None,
    ) -> Self:
        """Read a DataFrame of runs with at least N, D and loss, under these or other names.

        Rows that cannot be fitted stay in the table, excluded with their reason, and a
        :class:`ScalingWarning` lists the first of them. C is 6·N·D where there is none; rows
        that repeat another's N and D are seeds; other columns are kept.

        Parameters
        ----------
        frame : DataFrame
            N in parameters, D in tokens, C in FLOP, loss in nats per token; "70B" is understood.
        columns : mapping of str to str
            Known column to the frame's own, such as ``{"N": "size_of_model"}``.
        unit : str, optional
            What D counts, such as "images". None: what the column ``D_unit`` says, else tokens.

        Raises
        ------
        RunsError
            If a column is missing or ambiguous, no row can be used, or rows differ in ``D_unit``.
        """
        return cls._from_reading(read_frame(frame, columns, unit=unit))

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike[str],
        *,
        columns: Mapping[str, str] | None = None,
        unit: str | None = None,
    ) -> Self:
        """Read a CSV of runs (comma, semicolon or tab), as :meth:`from_frame` does.

        What :meth:`to_csv` wrote comes back unchanged, exclusions and their reasons included.

        Raises
        ------
        RunsError
            If the file is empty, or as for :meth:`from_frame`.
        """
        return cls._from_reading(read_frame(read_csv(path), columns, unit=unit, first_line=2))

    @classmethod
    def _from_reading(cls, reading: Reading) -> Self:
        for complaint in reading.complaints:
            warnings.warn(complaint, ScalingWarning, stacklevel=3)
        return cls(columns=reading.columns, notes=reading.notes, unit=reading.unit)

    def column(self, name: str) -> NDArray[Any]:
        """Return one column over the runs that count, shape (n_runs,), read-only.

        Copy it to change it.
        """
        if name not in self.columns:
            raise RunsError(f"there is no column {name!r}; there are {', '.join(self.columns)}.")
        if (found := self._counted.get(name)) is None:
            found = self.columns[name][self.included]
            found.flags.writeable = False
            self._counted[name] = found
        return found

    @property
    def N(self) -> NDArray[np.float64]:
        """Parameters, shape (n_runs,)."""
        return self.column("N")

    @property
    def D(self) -> NDArray[np.float64]:
        """Tokens, or what else :attr:`unit` names, shape (n_runs,)."""
        return self.column("D")

    @property
    def C(self) -> NDArray[np.float64]:
        """FLOP, shape (n_runs,)."""
        return self.column("C")

    @property
    def L(self) -> NDArray[np.float64]:
        """Held-out loss, nats per token, shape (n_runs,)."""
        return self.column("loss")

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Identifiers of the runs that count."""
        return tuple(self.column("run_id"))

    @property
    def exclusions(self) -> dict[str, str]:
        """Reason by run_id for each excluded run."""
        out = ~self.included
        return dict(zip(self.columns["run_id"][out], self.columns["excluded"][out], strict=True))

    def __len__(self) -> int:
        return int(self.included.sum())

    def __iter__(self) -> Iterator[Run]:
        for i in np.flatnonzero(self.included):
            yield Run(**{name: self.columns[name][i] for name in COLUMNS})

    def exclude(self, ids: Sequence[str] | str, *, reason: str) -> Self:
        """Return a table in which the runs `ids` no longer count, for a stated reason."""
        return self._mark(ids, reason or "excluded")

    def restore(self, ids: Sequence[str] | str | None = None) -> Self:
        """Return a table in which the runs `ids` (all, if None) count again."""
        return self._mark(list(self.exclusions) if ids is None else ids, "")

    def _mark(self, ids: Sequence[str] | str, reason: str) -> Self:
        wanted = {ids} if isinstance(ids, str) else set(ids)
        known = self.columns["run_id"]
        if missing := wanted - set(known):
            raise RunsError(f"no run is called {', '.join(sorted(map(repr, missing)))}.")
        marks = self.columns["excluded"].copy()
        marks[np.fromiter((run_id in wanted for run_id in known), bool, len(known))] = reason
        return self._with(excluded=marks)

    def _with(self, **changed: NDArray[Any]) -> Self:
        return replace(self, columns={**self.columns, **changed})

    def where(self, mask: ArrayLike | None = None, **conditions: Any) -> Self:
        """Return the table of those rows alone that satisfy every condition.

        Parameters
        ----------
        mask : array_like of bool, shape (n_runs,) or (n_rows,)
            Rows to keep: of those that count, or of all.
        **conditions
            Column name to a value, a list of values, or a pair (low, high), both included and
            either of them None: ``runs.where(budget=1e18, N=(1e6, None), schedule=["wsd"])``.

        Raises
        ------
        RunsError
            If a column does not exist, or the mask has another length.
        """
        return replace(
            self, columns=select(self.columns, mask=mask, counted=self.included, **conditions)
        )

    def with_budgets(self, budgets: ArrayLike | None = None) -> Self:
        """Return a table with `budgets`, FLOP, shape (n_runs,), or with those that C clusters in.

        Raises
        ------
        RunsError
            If `budgets` is None and the runs do not fall into IsoFLOP slices.
        """
        values = infer_budgets(self.N, self.C) if budgets is None else np.asarray(budgets, float)
        if not np.isfinite(values).any():
            raise RunsError(
                "the runs' compute does not cluster into IsoFLOP slices of three sizes or more. "
                "Pass each run's budget: runs.with_budgets([1e18, 1e18, ...])."
            )
        column = self.columns["budget"].copy()
        column[self.included] = values
        return self._with(budget=column)

    def with_convention(self, convention: Convention) -> Self:
        """Return a table whose N counts parameters by `convention`; C stays what was spent.

        Raises
        ------
        RunsError
            If a run that counts has no such count.
        """
        counts = self.columns[f"n_{check_convention(convention)}"]
        if lacking := int(np.isnan(counts[self.included]).sum()):
            have = [c for c in CONVENTIONS if not np.isnan(self.column(f"n_{c}")).any()]
            raise RunsError(
                f"{lacking} of {len(self)} runs have no column n_{convention}. Conventions that "
                f"every run has: {', '.join(have) or 'none'}."
            )
        return self._with(N=counts)

    @property
    def epochs(self) -> NDArray[np.float64]:
        """Passes over the training data, D / unique tokens; NaN where unknown, shape (n_runs,)."""
        return np.asarray(self.D / self.column("unique_tokens"))

    @property
    def data_hash(self) -> str:
        """Content hash of what a fit reads, in whatever order the runs stand."""
        keys = ("N", "D", "C", "loss", "budget", "unique_tokens")
        numbers = np.stack([self.column(key).astype(float) for key in keys])
        numbers = numbers[:, np.lexsort(numbers)] + 0.0
        return hashlib.sha256(numbers.tobytes()).hexdigest()[:12]

    def __repr__(self) -> str:
        return "\n".join(summary(self.columns, self.notes, self.unit))

    def _repr_html_(self) -> str:
        first, *rest = map(html.escape, summary(self.columns, self.notes, self.unit))
        return f"<div><b>{first}</b>{''.join(f'<br>{line}' for line in rest)}</div>"

    def to_frame(self) -> pd.DataFrame:
        """Return all rows, excluded ones with their reason, as a DataFrame.

        Where D counts no tokens, a column ``D_unit`` says what it counts.
        """
        import pandas as pd

        unit = {} if self.unit == TOKENS else {UNIT_COLUMN: self.unit}
        return pd.DataFrame({**self.columns, **unit})

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write all rows; :meth:`from_csv` reads them back unchanged."""
        self.to_frame().to_csv(path, index=False)
