"""One HTML page that explains itself offline: sentences, tables and live figures."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ..curves import Curve, curves_of
from ..errors import FitError
from ..fit import Allocation, IsoFlopFit, LawFit
from ..records import RunTable, loss_unit
from .curves import plot_curves
from .diagnostics import plot_residuals
from .frontier import plot_frontier
from .isoflop import plot_isoflop
from .style import count, flop, measure
from .surface import plot_surface

if TYPE_CHECKING:
    import pandas as pd


@runtime_checkable
class ShowsItself(Protocol):
    """Anything a notebook shows as HTML: a fit, a table, a comparison."""

    def _repr_html_(self) -> str: ...


class MakesTables(Protocol):
    """Anything that answers for many budgets."""

    @property
    def unit(self) -> str:
        """What D counts."""

    def chinchilla_table(self, budgets: Sequence[float] | None = None) -> Any:
        """Return one row a budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """Sentences that stand out, such as warnings; ``title`` heads them."""

    title: str
    sentences: tuple[str, ...]


Part: TypeAlias = "str | Notes | go.Figure | ShowsItself"
"""A paragraph, notes, a figure, a DataFrame, or anything with ``_repr_html_``."""

_HEADS = {
    "n_params": "N* (parameters)",
    "n_tokens": "D* ({unit})",
    "loss": "loss",
    "tokens_per_param": "{unit} per parameter",
}
_CSS = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.answer { font-size: 1.1rem; border-left: 4px solid #0072B2; padding: .2rem 1rem; }
.notes { border-left: 4px solid #D55E00; padding: .2rem 1rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; border: 0; }
th, td { padding: .25rem .7rem; text-align: right; border: 0; border-bottom: 1px solid #8884; }
pre { overflow-x: auto; }
.whole { white-space: nowrap; }
footer { margin-top: 3rem; color: #767676; font-size: .85rem; }
"""


def html_report(
    title: str,
    sections: Sequence[tuple[str, Sequence[Part]]],
    *,
    footer: str = "",
    path: str | os.PathLike[str] | None = None,
) -> str:
    """Return one self-contained HTML page; plotly.js is in it once, and nothing is fetched.

    Parameters
    ----------
    title : str
    sections : sequence of (heading, parts)
        In order; an empty heading has none, an empty section is left out.
    footer : str
    path : path or None
        Where to write it, too.
    """
    body = "\n".join(_section(heading, parts) for heading, parts in sections if parts)
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n"
        f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f"{body}\n<footer>{escape(footer)}</footer>\n</body>\n</html>\n"
    )
    if path is not None:
        Path(path).write_text(page, encoding="utf-8")
    return page


def _section(heading: str, parts: Sequence[Part]) -> str:
    head = f"<h2>{escape(heading)}</h2>\n" if heading else ""
    return f"<section>\n{head}{''.join(_part(part) for part in parts)}</section>"


def _part(part: Part) -> str:
    if isinstance(part, str):
        return f"<p>{_whole(escape(part))}</p>\n"
    if isinstance(part, Notes):
        if not part.sentences:
            return ""
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in part.sentences)
        return f'<div class="notes"><b>{escape(part.title)}</b><ul>{items}</ul></div>\n'
    if isinstance(part, go.Figure):
        config = {"displaylogo": False, "responsive": True}
        figure: str = part.to_html(full_html=False, include_plotlyjs=False, config=config)
        return f"{figure}\n"
    if hasattr(part, "to_html"):
        table: str = part.to_html(index=False, float_format=lambda value: f"{value:.4g}", border=0)
        return f'<div class="table">{_whole(table)}</div>\n'
    return f'<div class="table">{_whole(part._repr_html_())}</div>\n'


_NUMBER = r"-?\d[\d.,]*(?:e[+-]?\d+)?(?: [kMBT])?"
_INTERVAL = re.compile(rf"{_NUMBER} \((?:\d+ %: )?{_NUMBER} to {_NUMBER}\)")


def _whole(html: str) -> str:
    """Return a text in which a number and its interval stay on one line."""
    return _INTERVAL.sub(r'<span class="whole">\g<0></span>', html)


def answer_sentence(answer: Allocation) -> str:
    """Return an allocation in one sentence, with its intervals and how far it reaches."""

    def said(name: str, value: str, show: Any) -> str:
        low, high = answer.intervals.get(name, (np.nan, np.nan))
        return f"{value} ({show(low)} to {show(high)})" if np.isfinite(low + high) else value

    n = said("n_params", count(answer.n_params), count)
    d = said("n_tokens", count(answer.n_tokens), count)
    text = f"For C = {flop(answer.compute)} FLOP: N = {n} parameters, D = {d} {answer.unit}"
    if np.isfinite(answer.loss):
        text += f", loss {said('loss', measure(answer.loss), measure)}"
    if answer.extrapolates:
        text += f"; that is {answer.extrapolation:.3g} times the largest run"
    return text + "."


def allocation_table(fit: MakesTables, budgets: Sequence[float] | None = None) -> pd.DataFrame:
    """Return the compute-optimal table as a reader wants it: counts in words, with intervals."""
    import pandas as pd

    table = fit.chinchilla_table(budgets)
    shown: dict[str, list[str]] = {"C (FLOP)": [flop(c) for c in table["C"]]}
    for name, head in _HEADS.items():
        show = measure if name in ("loss", "tokens_per_param") else count
        ends = [table.get(f"{name}_{end}", table[name] * np.nan) for end in ("low", "high")]
        shown[head.format(unit=fit.unit)] = [
            f"{show(value)} ({show(low)} to {show(high)})" if np.isfinite(low) else show(value)
            for value, low, high in zip(table[name], *ends, strict=True)
        ]
    return pd.DataFrame(shown)


def fit_report(
    runs: RunTable,
    fits: Sequence[LawFit | IsoFlopFit],
    *,
    target: float | None = None,
    budgets: Sequence[float] | None = None,
    curves: Sequence[Curve] = (),
    title: str = "Scaling law report",
    notes: Sequence[str] = (),
    path: str | os.PathLike[str] | None = None,
) -> str:
    """Return the page that goes with an answer: the answer, its doubts, and what it rests on.

    Parameters
    ----------
    runs : RunTable
    fits : sequence of LawFit and IsoFlopFit
        The first that can answer does.
    target : float or None, FLOP
        Compute to answer for; None gives the tables alone.
    budgets : sequence of float or None, FLOP
        Rows of the allocation table.
    curves : sequence of Curve
    title : str
    notes : sequence of str
        Sentences of the caller's own, shown with the warnings.
    path : path or None
        Where to write it, too.
    """
    answering = [fit for fit in fits if _answers(fit)]
    answers: list[Part] = []
    if answering and target:
        for fit in answering:
            name = f"{_name(fit)}: " if len(answering) > 1 else ""
            sentence = escape(name + answer_sentence(fit.allocate(target)))
            kind = ' class="answer"' if fit is answering[0] else ""
            answers.append(_Html(f"<p{kind}>{sentence}</p>"))
    asked = [note for fit in answering[:1] if target for note in fit.allocate(target).notes]
    doubts = [*asked, *(note for fit in fits for note in fit.warnings)]
    warnings = [*notes, *(str(note) for note in doubts)]
    answers.append(Notes(title="Before you rely on it", sentences=tuple(dict.fromkeys(warnings))))
    if answering:
        table = allocation_table(answering[0], budgets)
        frontiers = {_name(fit): fit for fit in answering}
        figures: list[Part] = [
            plot_frontier(frontiers, quantity=quantity, target=target)
            for quantity in ("n_params", "n_tokens")
        ]
        answers += [table, *figures]
    evidence: list[Part] = []
    losses = f", loss in {loss_unit(runs.unit)}" if loss_unit(runs.unit) else ""
    for fit in fits:
        evidence += [fit, *_figures(fit)]
    watched: list[Part] = [plot_curves(curves)] if curves else []
    return html_report(
        title,
        [
            ("Answer", answers),
            ("What it rests on", evidence),
            ("Training", watched),
            ("Runs", [runs, *_excluded(runs)]),
        ],
        footer=f"Data {runs.data_hash}. N in parameters, D in {runs.unit}, C in FLOP{losses}.",
        path=path,
    )


def sweep_report(
    fit: IsoFlopFit,
    curves: Mapping[str, Any],
    table: pd.DataFrame | None = None,
    *,
    title: str,
    law: LawFit | None = None,
    target: float | None = None,
) -> str:
    """Return the page of a finished sweep: its answer, its IsoFLOP curves, its training curves.

    Parameters
    ----------
    fit : IsoFlopFit
    curves : mapping of run_id to (tokens, loss, ...)
        As the store has them; only runs that count are drawn.
    table : DataFrame or None
        The allocation table; its budgets are the page's. None: the fit's own choice.
    title : str
    law : LawFit or None
        The parametric fit to the same runs, shown beside it.
    target : float or None, FLOP
        Compute to answer for; default: the table's largest.
    """
    logged = {run_id: (entry[0], entry[1]) for run_id, entry in curves.items()}
    budgets = None if table is None else [float(c) for c in table["C"]]
    return fit_report(
        fit.runs,
        [fit] if law is None else [fit, law],
        target=target or (max(budgets) if budgets else None),
        budgets=budgets,
        curves=curves_of(fit.runs, logged),
        title=title,
    )


@dataclass(frozen=True, slots=True)
class _Html:
    text: str

    def _repr_html_(self) -> str:
        return self.text


def _answers(fit: LawFit | IsoFlopFit) -> bool:
    if isinstance(fit, IsoFlopFit):
        return fit.trends is not None
    if not fit.law.answers_allocation:
        return False
    try:
        fit.allocate(fit.scope.C[1] if fit.scope else 1e21)
    except FitError:
        return False
    return True


def _name(fit: LawFit | IsoFlopFit) -> str:
    return "Approach 2" if isinstance(fit, IsoFlopFit) else f"Approach 3, {fit.objective}"


def _figures(fit: LawFit | IsoFlopFit) -> list[go.Figure]:
    if isinstance(fit, IsoFlopFit):
        return [plot_isoflop(fit)]
    drawn = [plot_residuals(fit)] if fit.runs is not None else []
    try:
        return [plot_surface(fit), *drawn]
    except FitError:
        return drawn


def _excluded(runs: RunTable) -> list[pd.DataFrame]:
    import pandas as pd

    if not runs.exclusions:
        return []
    rows = list(runs.exclusions.items())[:200]
    return [pd.DataFrame(rows, columns=["excluded run", "reason"])]
