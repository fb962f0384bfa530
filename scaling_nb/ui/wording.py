"""The panel's sentences: the answer, its company, and remedies in words of controls."""

from __future__ import annotations

import math
import re
from html import escape

from ..errors import counted
from ..fit import Allocation, FitWarning, IsoFlopFit, LawFit
from ..plots.style import count, flop, measure
from .analysis import Analysis

_FLOP_UNIT = " FLOP"
_SHORT = 160
_CONTROLS = (
    (r"use fit_law on all runs", "use Approach 3"),
    (r"(use|prefer) fit_law(, which needs none)?", r"use Approach 3"),
    (r"Take the loss from fit_law", "Take the loss from Approach 3"),
    (r"hold E with fixed=\{'E': \.\.\.\}", "hold E: irreducible loss, fixed"),
    (r"with fixed=\{'E': \.\.\.\}", "at a value: irreducible loss, fixed"),
    (r"hold (a parameter|parameters|it|R_D_star and R_N_star) with fixed=", "hold E"),
    (r"Leave copies out: runs\.exclude\(ids, reason='copy'\)",
     "Exclude the copies in the table of runs"),
    (r",? ?runs\.exclude\(ids, reason=[^)]*\)", ", exclude it in the table of runs"),
    (r"Fit DataConstrainedLaw to runs that repeat data to use your own\.",
     "The panel has no fit of them: snb.DataConstrainedLaw has, in Python."),
    (r"Fit DataConstrainedLaw, or only runs of one epoch\.",
     "Exclude the runs of more than one epoch, or give more data."),
    (r"Budgets in answers mean 6·N·D; pass flops='counted' to use the runs' own\.",
     "Budgets here mean the FLOP that were counted."),
    (r": runs\.where\(schedule=\[\.\.\.\]\)", ""),
    (r": runs\.with_convention\('total'\)", ""),
)  # fmt: skip


def in_controls(text: str) -> str:
    """Return a sentence of the fits with what to press in place of what to call."""
    for pattern, words in _CONTROLS:
        text = re.sub(pattern, words, text)
    return plain(text)


def plain(text: str) -> str:
    """Return a text whose powers of ten read as they are typed: ``1e20``, not ``1e+20``."""
    return re.sub(r"(\d)e\+0*(\d)", r"\1e\2", text)


def wants_approach_3(note: FitWarning, method: str) -> bool:
    """Return whether a note's remedy is the other method."""
    said = in_controls(str(note))
    return method == "isoflop" and "Approach 3" in said


def answer_text(analysis: Analysis) -> str:
    """Return the answer in one sentence, with intervals."""
    return re.sub(r"<[^>]+>", "", answer_html(analysis)).replace("&lt;", "<")


def answer_html(analysis: Analysis | None) -> str:
    """Return the answer in large letters, or why there is none."""
    if analysis is None:
        return '<span class="snb-muted">the answer appears when runs have finished</span>'
    a = analysis.answer
    if a is None:
        said = in_controls(analysis.problem) or "no answer yet"
        if analysis.fit is not None and analysis.fit.warnings and len(said) > _SHORT:
            said = "no answer yet: the sentences under 3 FIT say why, and what would help"
        return f'<span class="snb-muted">{escape(said)}</span>'
    unit = escape(a.unit)
    budget = f"<b>C = {flop(analysis.target)}</b>{_FLOP_UNIT}"
    if a.inference_tokens:
        head = (
            f"To reach the loss of {budget} while serving {count(a.inference_tokens)} {unit}: "
            f"train with <b>{flop(a.compute)}</b>{_FLOP_UNIT}, "
        )
    else:
        head = f"For {budget}: "
    return (
        f"{head}<b>N = {count(a.n_params)}</b> parameters{_span(a, 'n_params')}, "
        f"<b>D = {count(a.n_tokens)}</b> {unit}{_span(a, 'n_tokens')}, "
        f"loss <b>{measure(a.loss)}</b>{_span(a, 'loss')}, "
        f"<b>{a.tokens_per_param:.3g}</b> {unit} per parameter"
    )


def _span(answer: Allocation, name: str) -> str:
    low, high = answer.intervals.get(name, (math.nan, math.nan))
    if not math.isfinite(low + high):
        return ""
    if name == "loss":
        return f" ({measure(low)}–{measure(high)})"
    return f" ({count(low)}–{count(high)})"


def _reach(answer: Allocation, fit: IsoFlopFit | LawFit | None) -> str:
    """Return how far beyond the runs an answer reaches, on either side."""
    if answer.extrapolates:
        return f"extrapolating <b>{flop(answer.extrapolation)}×</b> beyond the largest run"
    below = fit.scope.C[0] / answer.compute if fit is not None and fit.scope is not None else 0.0
    if below > 1:
        return f"extrapolating <b>{flop(below)}×</b> below the smallest run"
    return "within the compute of the runs"


def details_html(analysis: Analysis | None, behind: int = 0) -> str:
    """Return what goes with an answer: the flat basin, extrapolation, the back-test.

    Parameters
    ----------
    analysis : Analysis or None
    behind : int
        Runs that there are by now, where the analysis is of others.
    """
    if analysis is None or analysis.answer is None:
        return ""
    a, parts = analysis.answer, []
    low, high = a.near_optimal
    if a.inference_tokens:
        # The basin of the training compute alone does not speak of this answer.
        parts.append(f"training and serving take {flop(a.lifetime_compute)} FLOP, the least")
        parts.append(f"with nothing to serve, N {count(low)} to {count(high)} are as good")
    elif math.isfinite(low + high):
        parts.append(
            f"within {100 * a.within:g} % of the best loss: N {count(low)} to {count(high)}"
        )
    if math.isfinite(a.extrapolation):
        parts.append(_reach(a, analysis.fit))
    if a.epochs > 1:
        parts.append(f"{a.epochs:.3g} epochs over {count(a.unique_tokens)} unique {escape(a.unit)}")
    test = analysis.backtest
    if test is not None:
        parts.append(
            f"back-test: the smaller budgets predict the largest, {test.extrapolation:.2g}× "
            f"further, to {100 * test.rmse:.2g} %"
        )
    if behind:
        # First, because what follows is not of the runs that the page shows.
        parts.insert(0, f"<b>of {counted(len(analysis.runs), 'run')}</b>, fitting {behind:,} …")
    elif not analysis.final:
        parts.append('<span class="snb-muted">refining the intervals …</span>')
    return " · ".join(parts)
