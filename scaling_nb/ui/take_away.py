"""What a person takes away from the panel: code, tables, a page; made of the state, no widgets."""

from __future__ import annotations

import os
from pathlib import Path

from ..curves import curves_of
from ..plots.report import fit_report
from ..records import RunTable
from .analysis import Analysis, Question, target_of
from .snapshot import Snapshot
from .wording import answer_text

RUNS = "scaling_runs.csv"


def code_cell(runs: RunTable, question: Question, *, csv: str | os.PathLike[str] = RUNS) -> str:
    """Return a cell that gives the panel's numbers without it, from the runs in `csv`.

    The CSV carries the exclusions with their reasons; the cell shows them again, so that a reader
    sees what was left out and why.
    """
    lines = [
        "import scaling_nb as snb",
        "",
        f'runs = snb.RunTable.from_csv("{Path(csv).as_posix()}")',
    ]
    columns = runs.columns
    taken = columns["run_id"][(columns["excluded"] == "") & (columns["status"] != "finished")]
    if len(taken):  # reading leaves them out
        lines.append(f"runs = runs.restore({taken.tolist()!r})")
    by_reason: dict[str, list[str]] = {}
    for run_id, reason in runs.exclusions.items():
        by_reason.setdefault(reason, []).append(run_id)
    lines += [
        f"runs = runs.exclude({ids!r}, reason={reason!r})" for reason, ids in by_reason.items()
    ]
    if question.method == "isoflop":
        lines.append("fit = snb.fit_isoflop(runs)")
    else:
        fixed = f", fixed={dict(question.fixed)!r}" if question.fixed else ""
        lines.append(
            f'fit = snb.fit_law(runs, objective="{question.method}"{fixed}, flops="counted")'
        )
    extra = ""
    if question.max_tokens:
        extra += f", max_tokens={question.max_tokens!r}"
    if question.inference_tokens:
        extra += f", inference_tokens={question.inference_tokens!r}"
    lines += [f"answer = fit.allocate({target_of(runs, question)!r}{extra})", "print(answer)"]
    return "\n".join(lines)


def table_budgets(analysis: Analysis) -> list[float]:
    """Return the budgets of the allocation table, FLOP: the runs' decades, and the target."""
    target = target_of(analysis.runs, analysis.question)
    fit = analysis.fit
    low, high = fit.scope.C if fit is not None and fit.scope is not None else (target, target)
    decade = float(f"{low:.0e}")
    budgets: list[float] = []
    while decade <= 100.0 * high and len(budgets) < 12:
        if decade >= low:
            budgets.append(decade)
        decade *= 10.0
    return sorted({*budgets, target})


def latex(analysis: Analysis) -> str:
    """Return the allocation table as LaTeX."""
    asked = analysis.asked
    if asked is None or analysis.answer is None:
        return f"% {analysis.problem}"
    text: str = asked.chinchilla_table(table_budgets(analysis), format="latex")
    return text


def report(snapshot: Snapshot, *, title: str) -> str:
    """Return the self-contained page that goes with the answer."""
    analysis = snapshot.analysis
    assert analysis is not None
    fits = [f for f in (analysis.law, analysis.iso) if f is not None]
    notes: list[str] = []
    if analysis.backtest is not None:
        notes.append(str(analysis.backtest))
    if analysis.question.max_tokens or analysis.question.inference_tokens:
        notes.append(answer_text(analysis))
    curves = []
    if snapshot.sweep is not None:
        logged = {k: snapshot.sweep.curve(k) for k in analysis.runs.run_ids}
        curves = list(curves_of(analysis.runs, logged))
    return fit_report(
        analysis.runs,
        fits,
        target=analysis.target,
        budgets=table_budgets(analysis) if analysis.answer is not None else None,
        curves=curves,
        title=title,
        notes=notes,
    )
