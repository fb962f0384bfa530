"""Published laws as fits that answer: ``published["besiroglu_2024"].allocate(1e21)``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import FitError, UnknownLawError
from ..flops import Convention
from ..laws.published import FRONTIERS, SURFACES, PublishedFrontier, PublishedSurface
from ..plain_text import plain_text
from .allocation import Allocation
from .notes import FitWarning
from .result import LawFit, TableFormat

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierFit:
    """N*(C) and D*(C) as a power law and C = 6·N·D, without a loss: all that some papers give.

    Attributes
    ----------
    name : str
    coefficient_N, exponent_N : float
        N* = coefficient_N · C^exponent_N.
    exponent_N_interval : (float, float)
        As published; NaN where it is not.
    convention : str
        How N is counted.
    source : str
    warnings : tuple of FitWarning
    status : str
        Always ``published``.
    """

    name: str
    coefficient_N: float
    exponent_N: float
    exponent_N_interval: tuple[float, float] = (float("nan"), float("nan"))
    convention: Convention = "total"
    source: str
    warnings: tuple[FitWarning, ...] = field(default=(), repr=False)
    status: str = "published"

    @property
    def exponent_D(self) -> float:
        """The exponent b of D* ∝ C^b, 1 - a."""
        return 1.0 - self.exponent_N

    def optimal(self, compute: ArrayLike) -> tuple[Array, Array]:
        """Return N*, parameters, and D* = C / 6N*, tokens, in the shape of `compute`, FLOP."""
        c = np.asarray(compute, float)
        n = self.coefficient_N * c**self.exponent_N
        return n, c / (6.0 * n)

    def allocate(self, compute: float) -> Allocation:
        """Divide `compute`, FLOP; loss and intervals are not published and NaN or absent.

        Raises
        ------
        FitError
            If `compute` is not positive.
        """
        if not (np.isfinite(compute) and compute > 0):
            raise FitError(f"compute is {compute}, but must be a positive, finite number.")
        n, d = (float(x) for x in self.optimal(compute))
        nan = float("nan")
        return Allocation(
            compute=float(compute),
            n_params=n,
            n_tokens=d,
            loss=nan,
            tokens_per_param=d / n,
            near_optimal=(nan, nan),
            within=nan,
            extrapolation=nan,
            unique_tokens=d,
            lifetime_compute=float(compute),
            notes=self.warnings,
        )

    def chinchilla_table(
        self, budgets: Sequence[float] | None = None, *, format: TableFormat = "frame"
    ) -> Any:
        """Return N* and D* by budget, 1e18 to 1e26 FLOP unless told otherwise; no loss is known."""
        from .table import chinchilla_table, decades

        asked = decades(None) if budgets is None else budgets
        return chinchilla_table([self.allocate(c) for c in asked], format=format)

    _repr_pretty_ = plain_text

    def __str__(self) -> str:
        lo, hi = self.exponent_N_interval
        span = f" ({lo:.3g} to {hi:.3g})" if np.isfinite(lo) else ""
        return (
            f"{self.name}: N* = {self.coefficient_N:.4g} · C^{self.exponent_N:.4g}{span}, "
            f"D* = C / 6N*\n{self.source}"
        )

    def _repr_html_(self) -> str:
        name, *rest = str(self).split(": ", 1)
        told = "<br>".join(escape(line) for line in rest[0].split("\n"))
        notes = "".join(f"<li>{escape(str(note))}</li>" for note in self.warnings)
        return f"<p><b>{escape(name)}</b> {told}</p>{'<ul>' + notes + '</ul>' if notes else ''}"


def _notes(note: str, convention: Convention) -> tuple[FitWarning, ...]:
    notes = []
    if note:
        notes.append(FitWarning(code="published_note", message=note, remedy=""))
    if convention != "total":
        notes.append(
            FitWarning(
                code="convention",
                message=f"N is counted as {convention}.",
                remedy=f'Compare it with runs.with_convention("{convention}").',
            )
        )
    return tuple(notes)


def _surface(item: PublishedSurface) -> LawFit:
    return LawFit(
        law=item.law,
        params=item.params,
        intervals=item.intervals,
        level=item.level,
        status="published",
        objective="published",
        source=item.source,
        warnings=_notes(item.note, item.convention),
    )


def _frontier(name: str, item: PublishedFrontier) -> FrontierFit:
    coefficient, exponent = item.coefficient, item.exponent
    if item.variable == "D":
        coefficient, exponent = 1.0 / (6.0 * item.coefficient), 1.0 - item.exponent
    return FrontierFit(
        name=name,
        coefficient_N=coefficient,
        exponent_N=exponent,
        exponent_N_interval=item.exponent_interval,
        convention=item.convention,
        source=item.source,
        warnings=_notes(item.note, item.convention),
    )


class Literature(Mapping[str, Any]):
    """Published laws by name; shows itself as a table of names, exponents and sources."""

    def __init__(self) -> None:
        self._laws = {name: _surface(item) for name, item in SURFACES.items()} | {
            name: _frontier(name, item) for name, item in FRONTIERS.items()
        }

    def __getitem__(self, name: str) -> Any:
        if name not in self._laws:
            known = ", ".join(self._laws)
            raise UnknownLawError(f"no law is published as {name!r}. There are: {known}.")
        return self._laws[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._laws)

    def __len__(self) -> int:
        return len(self._laws)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a law: name, exponent a of N* ∝ C^a, N*/D* at 1e21 FLOP, source."""
        import pandas as pd

        rows = []
        for name, law in self._laws.items():
            answer = law.allocate(1e21)
            rows.append(
                {
                    "name": name,
                    "a": law.exponent_N,
                    "N* at 1e21": answer.n_params,
                    "D*/N* at 1e21": answer.tokens_per_param,
                    "source": law.source,
                }
            )
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return self.to_frame().to_string(index=False, float_format="{:.3g}".format)

    def _repr_html_(self) -> str:
        html: str = self.to_frame().to_html(index=False, float_format="{:.3g}".format)
        return html


published = Literature()
"""Published laws by name: a :class:`LawFit` where there is a surface, else a
:class:`FrontierFit`. Both have ``allocate``, ``optimal``, ``exponent_N`` and ``source``."""
