"""What the panel says of the runs so far: one frozen value, computed off the widgets' thread."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from ..errors import FitError, ScalingError
from ..fit import (
    Allocation,
    Backtest,
    FitWarning,
    IsoFlopFit,
    LawFit,
    backtest,
    fit_isoflop,
    fit_law,
)
from ..plots.diagnostics import plot_residuals
from ..plots.frontier import plot_frontier
from ..plots.isoflop import plot_isoflop
from ..plots.style import INK, axis, colour, figure, flop, keep_readable
from ..records import RunTable, loss_unit
from .asked import Asked

Method = Literal["isoflop", "log-huber", "mse"]
METHODS: Mapping[str, Method] = {
    "Approach 2 · IsoFLOP parabolas": "isoflop",
    "Approach 3 · log-Huber": "log-huber",
    "Approach 3 · least squares": "mse",
}
SYMBOLS: Mapping[str, str] = {"alpha": "α", "beta": "β"}
"""Parameters of the law whose letter is not their name."""
QUICK_RESAMPLES = 40
"""Enough to see the band move; the whole sample follows when it is still."""
_POINTS, _QUICK_POINTS = 33, 6
RESAMPLES = 1000


NARROW: Mapping[str, object] = {
    "margin": {"l": 60, "r": 10, "t": 36, "b": 45},
    "title_font_size": 13,
    "legend": {"orientation": "h", "x": 0, "y": -0.3, "yanchor": "top"},
}
"""Layout of charts side by side: the legend below, where it takes no width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of the runs.

    Attributes
    ----------
    method : str
    fixed : mapping of str to float
        Parameters of the law held by hand: the irreducible loss E, or α, β and E in teaching.
    target : float or None, FLOP
        None: ten times the largest run.
    max_tokens, inference_tokens : float or None, tokens
        Unique tokens there are; tokens the model will serve.
    """

    method: Method = "isoflop"
    fixed: Mapping[str, float] = field(default_factory=dict)
    target: float | None = None
    max_tokens: float | None = None
    inference_tokens: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Analysis:
    """Fits, the answer and its doubts.

    Attributes
    ----------
    question : Question
    runs : RunTable
        All of them, excluded ones with their reasons.
    iso : IsoFlopFit or None
        Always tried, because its curves are drawn.
    law : LawFit or None
        Of the asked method; or, in Approach 2, None.
    optimum : LawFit or None
        The law with nothing held by hand, to compare with.
    answer : Allocation or None
    figures : mapping of str to go.Figure
        ``isoflop``, ``frontier`` and ``residuals``, those that there are.
    backtest : Backtest or None
    problem : str
        Why there is no answer; empty where there is one.
    final : bool
        False: intervals are of a small resample, and a finer one is on its way.
    """

    question: Question
    runs: RunTable
    iso: IsoFlopFit | None = None
    law: LawFit | None = None
    optimum: LawFit | None = None
    answer: Allocation | None = None
    figures: Mapping[str, go.Figure] = field(default_factory=dict, repr=False)
    backtest: Backtest | None = None
    problem: str = ""
    final: bool = False

    @property
    def fit(self) -> IsoFlopFit | LawFit | None:
        """The fit that answers."""
        return self.iso if self.question.method == "isoflop" else self.law

    @property
    def asked(self) -> Asked | None:
        """The fit, answering under the data cap and the serving load of the question."""
        q = self.question
        if self.fit is None:
            return None
        return Asked(fit=self.fit, max_tokens=q.max_tokens, inference_tokens=q.inference_tokens)

    @property
    def target(self) -> float:
        """The budget that was asked for, FLOP."""
        return target_of(self.runs, self.question)

    @property
    def warnings(self) -> tuple[FitWarning, ...]:
        """What should be known before the answer is relied on."""
        fitted = self.fit.warnings if self.fit else ()
        asked = self.answer.notes if self.answer else ()
        held = (_held(self.question.fixed),) if self.law is not None and self.question.fixed else ()
        # An answer repeats the doubts of its fit.
        return (*held, *fitted, *(note for note in asked if note not in fitted))


def _held(fixed: Mapping[str, float]) -> FitWarning:
    named = ", ".join(f"{SYMBOLS.get(name, name)} = {value:.4g}" for name, value in fixed.items())
    return FitWarning(
        code="held_by_hand",
        message=f"{named} {'is' if len(fixed) == 1 else 'are'} held by hand: the intervals do not "
        "speak of what is held, and are too narrow if it is wrong.",
        remedy="Free them to let the data decide all.",
        values=dict(fixed),
    )


def analyse(
    runs: RunTable, question: Question, *, quick: bool, earlier: Analysis | None = None
) -> Analysis:
    """Fit and answer; what cannot be had is None, and `problem` says why.

    Parameters
    ----------
    quick : bool
        Few resamples and no back-test, for while somebody drags.
    earlier : Analysis, optional
        Of the same runs: what does not depend on the question is taken from it.
    """
    if not len(runs):
        return _nothing(runs, question)
    if earlier is not None and earlier.runs is not runs:
        earlier = None
    return _analyse(runs, question, quick, earlier)


def _nothing(runs: RunTable, question: Question) -> Analysis:
    """Return what is left where no run counts: the excluded ones, to be taken back."""
    found = Analysis(
        question=question,
        runs=runs,
        problem="all runs are excluded, so there is nothing to fit. Take some back.",
        final=True,
    )
    return dataclasses.replace(found, figures=figures_of(found))


def _analyse(runs: RunTable, question: Question, quick: bool, earlier: Analysis | None) -> Analysis:
    resamples = QUICK_RESAMPLES if quick else RESAMPLES
    iso, problem = None, ""
    if earlier is not None and earlier.iso is not None and (quick or earlier.final):
        iso = earlier.iso
    else:
        try:
            iso = fit_isoflop(runs, bootstrap=resamples, bias=not quick)
        except (ScalingError, ValueError) as error:
            problem = str(error)
    law = optimum = None
    if question.method != "isoflop":
        problem = ""
        try:
            law, optimum = _laws(runs, question, resamples, earlier)
        except (ScalingError, ValueError) as error:
            problem = str(error)
    fit = iso if question.method == "isoflop" else law
    answer = None
    if fit is not None and not problem:
        try:
            answer = allocate(fit, question)
        except FitError as error:
            problem = str(error)
    tested = None
    if not quick:
        tested = earlier.backtest if earlier is not None and earlier.final else _tested(runs)
    if optimum is None and not quick:
        optimum = _surface(runs)
    found = Analysis(
        question=question,
        runs=runs,
        iso=iso,
        law=law,
        optimum=optimum,
        answer=answer,
        backtest=tested,
        problem=problem,
        final=not quick,
    )
    return dataclasses.replace(found, figures=figures_of(found))


def _laws(
    runs: RunTable, question: Question, resamples: int, earlier: Analysis | None
) -> tuple[LawFit, LawFit]:
    objective: Literal["mse", "log-huber"] = "mse" if question.method == "mse" else "log-huber"
    law = fit_law(
        runs, objective=objective, fixed=question.fixed, bootstrap=resamples, flops="counted"
    )
    if not question.fixed:
        return law, law
    known = None if earlier is None else earlier.optimum
    if known is not None and known.objective == objective:
        return law, known
    return law, fit_law(runs, objective=objective, bootstrap=0, flops="counted")


def _tested(runs: RunTable) -> Backtest | None:
    try:
        return backtest(runs)
    except (ScalingError, ValueError):
        return None


def target_of(runs: RunTable, question: Question) -> float:
    """Return the budget to answer for, FLOP: the asked one, or ten times the largest run."""
    if question.target is not None:
        return question.target
    compute = np.where(np.isfinite(runs.C), runs.C, 6.0 * runs.N * runs.D)
    return float(f"{10.0 * float(compute.max()):.2g}")


def allocate(fit: IsoFlopFit | LawFit, question: Question) -> Allocation:
    """Return the answer to a question.

    Raises
    ------
    FitError
        If the fit cannot answer: data caps and inference need a law.
    """
    assert fit.runs is not None
    asked = Asked(
        fit=fit, max_tokens=question.max_tokens, inference_tokens=question.inference_tokens
    )
    return asked.allocate(target_of(fit.runs, question))


def figures_of(analysis: Analysis) -> dict[str, go.Figure]:
    """Return the panel's figures of an analysis."""
    made = {"isoflop": isoflop_figure(analysis)}
    fit, law = analysis.fit, analysis.law or analysis.optimum
    if analysis.answer is not None and fit is not None:
        # Minima are drawn where it is the parabolas that answer.
        drawn = fit if isinstance(fit, IsoFlopFit) else analysis.asked or fit
        points = _POINTS if analysis.final else _QUICK_POINTS
        made["frontier"] = plot_frontier(drawn, target=analysis.target, points=points)
    if law is not None and analysis.final:
        # While somebody drags, those of before stay: a hand waits for the answer and its band.
        made["residuals"] = plot_residuals(law)
    for figure_ in made.values():
        figure_.update_layout(**NARROW)
    if "frontier" in made:
        line = max((np.asarray(t.x, float) for t in made["frontier"].data), key=len)
        low, high = np.log10([line.min(), line.max()])
        at = 10.0 ** np.arange(np.floor(low), np.ceil(high) + 1)
        made["frontier"].update_xaxes(tickvals=at, ticktext=[flop(float(c)) for c in at])
        # The whole name is longer than the axis is high.
        made["frontier"].update_yaxes(title_text="N* (parameters)")
    return made


def _surface(runs: RunTable) -> LawFit | None:
    """Return Approach 3 without intervals, whose residuals show what the parabolas cannot."""
    try:
        return fit_law(runs, bootstrap=0, flops="counted")
    except (ScalingError, ValueError):
        return None


def isoflop_figure(analysis: Analysis) -> go.Figure:
    """Draw the IsoFLOP curves; the law's own curves where it is asked; excluded runs in grey.

    Every point carries its run_id as text, so that a click can be told from another.
    """
    runs, iso = analysis.runs, analysis.iso
    if iso is not None:
        drawing = plot_isoflop(iso)
    else:
        drawing = figure(
            "Loss against model size",
            axis("model size N", "parameters", log=True, values=runs.N),
            axis("held-out loss", loss_unit(runs.unit)),
        )
        drawing.add_scatter(
            x=runs.N, y=runs.L, mode="markers", name="run", text=runs.run_ids,
            hovertemplate="%{text}<br>N %{x:.4s}<br>loss %{y:.4f}<extra></extra>",
        )  # fmt: skip
    if iso is not None and analysis.law is not None:
        _add_law(drawing, iso, analysis.law)
    out = ~runs.included
    if out.any():
        drawing.add_scatter(
            x=runs.columns["N"][out],
            y=runs.columns["loss"][out],
            mode="markers",
            name="excluded",
            marker={"color": INK, "symbol": "x-thin-open", "size": 10, "line": {"width": 2}},
            text=runs.columns["run_id"][out],
            customdata=runs.columns["excluded"][out],
            hovertemplate="%{text}<br>%{customdata}<extra>excluded</extra>",
        )
    return keep_readable(drawing)


def _add_law(drawing: go.Figure, iso: IsoFlopFit, law: LawFit) -> None:
    for place, minimum in enumerate(iso.minima):
        sizes = iso.runs.N[iso.rows[place]]
        line = np.geomspace(sizes.min(), sizes.max(), 40)
        tokens = minimum.budget / iso.flops_per_token.at(line)
        drawing.add_scatter(
            x=line,
            y=law.predict(line, tokens),
            mode="lines",
            line={"color": colour(place), "width": 2.5, "dash": "dash"},
            name="fitted law",
            legendgroup="law",
            showlegend=place == 0,
            hoverinfo="skip",
        )
