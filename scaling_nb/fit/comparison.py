"""Approaches and counting conventions side by side: what they agree on, and what they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..curves import Curve
from ..errors import FitError
from ..flops import CONVENTIONS, Convention
from ..laws import ChinchillaLaw, Law
from ..plain_text import plain_text
from ..records import RunTable
from .allocation import Allocation
from .envelope import fit_envelope
from .isoflop import fit_isoflop
from .literature import published
from .notes import FitWarning
from .parametric import as_table, fit_law

if TYPE_CHECKING:
    import pandas as pd

_ABOUT_RUNS = frozenset(
    {"undecayed_schedule", "unknown_schedule", "mixed_schedules", "mixed_conventions"}
)
"""Warnings that make approaches differ, and so are told."""
_NAN = (float("nan"), float("nan"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One way of reading the runs, and what it says.

    Attributes
    ----------
    method : str
        Such as ``"Approach 2 (IsoFLOP)"`` or a published law's name.
    convention : str
        How N is counted.
    exponent_N : float
        a of N* ∝ C^a.
    exponent_N_interval : (float, float)
        NaN where there is none.
    answer : Allocation or None
        At the comparison's compute; None where the method cannot answer.
    status : str
        The fit's, or ``failed``.
    message : str
        Why it failed.
    warnings : tuple of FitWarning
        The fit's own.
    """

    method: str
    convention: str
    exponent_N: float = float("nan")
    exponent_N_interval: tuple[float, float] = _NAN
    answer: Allocation | None = None
    status: str
    message: str = ""
    warnings: tuple[FitWarning, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Every approach under every counting convention, at one compute.

    Attributes
    ----------
    compute : float, FLOP
        Where N*, D* and the loss are compared.
    entries : tuple of Entry
    """

    compute: float
    entries: tuple[Entry, ...] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each method and convention."""
        import pandas as pd

        return pd.DataFrame([_row(entry) for entry in self.entries])

    @property
    def disagreement(self) -> dict[str, float]:
        """Largest over smallest N* among the fits of these runs, by counting convention."""
        factors = {}
        for convention in {entry.convention for entry in self.entries}:
            sizes = [
                entry.answer.n_params
                for entry in self.entries
                if entry.convention == convention
                and entry.answer is not None
                and entry.status != "published"
            ]
            if len(sizes) > 1:
                factors[convention] = max(sizes) / min(sizes)
        return factors

    @property
    def sentences(self) -> tuple[str, ...]:
        """What to make of it, in words."""
        return tuple(_sentences(self))

    _repr_pretty_ = plain_text

    def __str__(self) -> str:
        table = self.to_frame().drop(columns="message")
        text = table.to_string(index=False, float_format="{:.4g}".format)
        return "\n".join([f"At C = {self.compute:.3g} FLOP:", text, *self.sentences])

    def _repr_html_(self) -> str:
        from html import escape

        table = self.to_frame().drop(columns="message")
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.sentences)
        return (
            f"<p>At C = {self.compute:.3g} FLOP</p>"
            f"{table.to_html(index=False, float_format='{:.4g}'.format)}<ul>{items}</ul>"
        )


def compare(
    runs: RunTable | pd.DataFrame,
    *,
    compute: float | None = None,
    law: Law | None = None,
    curves: Sequence[Curve] | None = None,
    literature: Sequence[str] = (),
    bootstrap: int = 400,
    seed: int = 0,
) -> Comparison:
    """Fit the same runs by every approach and every counting convention they record.

    Parameters
    ----------
    runs : RunTable or DataFrame
    compute : float or None, FLOP
        Where answers are compared; default the largest C among the runs, where nothing is
        extrapolated.
    law : Law or None
        For Approach 3; default :class:`ChinchillaLaw`.
    curves : sequence of Curve or None
        For Approach 1; without them, trunks with runs at several D serve.
    literature : sequence of str
        Names from :data:`scaling_nb.published` to put beside them.
    bootstrap : int
    seed : int

    Returns
    -------
    Comparison
        A method that cannot be applied is in it too, with the reason.

    Raises
    ------
    FitError
        If a name in `literature` is unknown.
    """
    if unknown := [name for name in literature if name not in published]:
        raise FitError(
            f"{', '.join(map(repr, unknown))}: no such published law. There are "
            f"{', '.join(published)}."
        )
    table = as_table(runs)
    at = float(compute if compute is not None else table.C.max())
    law = ChinchillaLaw() if law is None else law
    entries: list[Entry] = []
    for convention, counted in _countings(table):
        recounted = _recount(curves, table, counted)
        parametric = partial(fit_law, counted, law, flops="counted")
        attempts: dict[str, Callable[..., Any]] = {
            "Approach 3 (log-huber)": partial(parametric, objective="log-huber"),
            "Approach 3 (mse)": partial(parametric, objective="mse"),
            "Approach 2 (IsoFLOP)": partial(fit_isoflop, counted),
            "Approach 1 (envelope)": partial(fit_envelope, recounted or counted),
        }
        for name, fit in attempts.items():
            drawn = partial(fit, bootstrap=bootstrap, seed=seed)
            entries.append(_entry(name, convention, at, drawn))
    for name in literature:
        entries.append(_entry(name, _convention_of(name), at, partial(published.get, name)))
    return Comparison(compute=at, entries=tuple(entries))


def _countings(table: RunTable) -> Iterator[tuple[str, RunTable]]:
    """Yield the table as it is, then under each other convention that every run records."""
    recorded = {c: table.column(f"n_{c}") for c in CONVENTIONS}
    same = [c for c, n in recorded.items() if np.array_equal(n, table.N)]
    names = table.column("convention") if "convention" in table.columns else ()
    told = {str(name) for name in names} - {"", "nan", "None"}
    named = "mixed" if len(told) > 1 else next(iter(told), "given")
    yield (same[0] if same else named), table
    seen = [table.N]
    for convention, n in recorded.items():
        if np.isfinite(n).all() and not any(np.array_equal(n, other) for other in seen):
            seen.append(n)
            yield convention, table.with_convention(convention)


def _recount(
    curves: Sequence[Curve] | None, table: RunTable, counted: RunTable
) -> list[Curve] | None:
    if curves is None:
        return None
    size = dict(zip(table.run_ids, counted.N, strict=True))
    return [replace(curve, N=float(size.get(curve.run_id, curve.N))) for curve in curves]


def _convention_of(name: str) -> Convention:
    from ..laws.published import FRONTIERS, SURFACES

    return SURFACES[name].convention if name in SURFACES else FRONTIERS[name].convention


def _entry(method: str, convention: str, compute: float, fit: Callable[[], Any]) -> Entry:
    try:
        found = fit()
        answer = found.allocate(compute)
    except FitError as error:
        return Entry(method=method, convention=convention, status="failed", message=str(error))
    bounds = getattr(found, "exponent_N_interval", None)
    if bounds is None:
        bounds = getattr(found, "intervals", {}).get("exponent_N", _NAN)
    return Entry(
        method=method,
        convention=convention,
        exponent_N=found.exponent_N,
        exponent_N_interval=bounds,
        answer=answer,
        status=found.status,
        warnings=tuple(getattr(found, "warnings", ())),
    )


def _row(entry: Entry) -> dict[str, Any]:
    low, high = entry.exponent_N_interval
    row: dict[str, Any] = {
        "method": entry.method,
        "N": entry.convention,
        "a": entry.exponent_N,
        "a_low": low,
        "a_high": high,
    }
    for name in ("n_params", "n_tokens", "loss"):
        answer = entry.answer
        row[name] = getattr(answer, name) if answer else np.nan
        ends = answer.intervals.get(name, _NAN) if answer else _NAN
        row[f"{name}_low"], row[f"{name}_high"] = ends
    tested = answer.held_out if answer else None
    row["backtest_error"] = tested.rmse if tested else np.nan
    return row | {"status": entry.status, "message": entry.message}


def _sentences(comparison: Comparison) -> Iterator[str]:
    for convention, factor in sorted(comparison.disagreement.items()):
        fits = [e for e in comparison.entries if e.convention == convention and e.answer]
        bounds = [e.answer.intervals.get("n_params", _NAN) for e in fits if e.answer]
        known = np.array([b for b in bounds if np.isfinite(b).all()])
        overlap = bool(len(known) and known[:, 0].max() <= known[:, 1].min())
        verdict = "their intervals overlap" if overlap else "their intervals do not all overlap"
        yield (
            f"With N as {convention}, the approaches' N* differ by a factor of "
            f"{factor:.2f}; {verdict}."
        )
    for entry in comparison.entries:
        if entry.status == "failed":
            yield f"{entry.method}, N as {entry.convention}: {entry.message}"
        for note in entry.warnings:
            if note.code in _ABOUT_RUNS:
                yield f"{entry.method}, N as {entry.convention}: {note}"
