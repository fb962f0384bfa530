"""What a fit leaves unexplained, and what it cannot tell: residuals, profile, bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ..errors import FitError
from ..fit import LawFit, fit_law
from .style import INK, Unit, axis, colour, drawn_rows, figure

Array = NDArray[np.float64]
Against = Literal["C", "N", "D", "L"]

_FAR = 5.0
"""Robust standard deviations beyond which a residual is marked."""
_AXIS: dict[Against, tuple[str, Unit]] = {
    "C": ("training compute C", "FLOP"),
    "N": ("model size N", "parameters"),
    "D": ("training tokens D", "tokens"),
    "L": ("held-out loss", "nats per token"),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residuals:
    """ln L - ln L̂ of each run, and which lie far out.

    ``scale`` is 1.4826 × the median absolute deviation; ``far`` marks residuals beyond five.
    Of thousands of runs a sample is shown, and those that lie far out.
    """

    run_ids: tuple[str, ...]
    x: Array
    residual: Array
    scale: float
    far: NDArray[np.bool_]


def residuals(fit: LawFit, against: Against = "C") -> Residuals:
    """Return residuals against C, N, D or L.

    Raises
    ------
    FitError
        If the fit has no runs with it.
    """
    residual = fit.residuals()
    runs = fit.runs
    if runs is None:
        raise FitError("this law has no runs with it. Fit a table of runs to see residuals.")
    scale = float(1.4826 * np.median(np.abs(residual - np.median(residual))))
    far = np.abs(residual) > _FAR * max(scale, 1e-12)
    rows = drawn_rows(len(residual), always=far)
    return Residuals(
        run_ids=tuple(np.array(runs.run_ids, dtype=object)[rows]),
        x=getattr(runs, against)[rows],
        residual=residual[rows],
        scale=scale,
        far=far[rows],
    )


def plot_residuals(fit: LawFit, against: Against = "C") -> go.Figure:
    """Draw residuals in per cent; a trend says that the law is wrong, a far point that a run is."""
    view = residuals(fit, against)
    drawing = figure(
        "Residuals: observed over predicted loss",
        axis(*_AXIS[against], log=True, values=None if against == "C" else view.x),
        axis("residual of ln loss (%)"),
    )
    for far, name, symbol in ((False, "run", "circle"), (True, "far out", "diamond-open")):
        rows = view.far == far
        drawing.add_scatter(
            x=view.x[rows],
            y=100.0 * view.residual[rows],
            mode="markers",
            name=name,
            marker={"color": colour(3 if far else 0), "symbol": symbol, "size": 10 if far else 7},
            text=np.array(view.run_ids, dtype=object)[rows],
            hovertemplate="%{text}<br>%{y:+.2f} %<extra></extra>",
        )
    drawing.add_hline(y=0, line={"color": INK, "width": 1})
    return drawing.update_layout(showlegend=bool(view.far.any()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """The objective with one parameter held at each value and all others refitted."""

    name: str
    value: Array
    objective: Array
    best: float


def profile(fit: LawFit, name: str = "E", *, points: int = 41) -> Profile:
    """Refit with `name` held over its bootstrap range, or half to twice its value without one.

    Raises
    ------
    FitError
        If the law has no such parameter, or the fit has no runs with it.
    """
    if name not in fit.params or fit.runs is None:
        raise FitError(
            f"there is no profile of {name!r}: the law has {', '.join(fit.params)}, and the fit "
            f"has {'no ' if fit.runs is None else ''}runs with it."
        )
    best = fit.params[name]
    low, high = fit.intervals.get(name, (0.5 * best, 2.0 * best))
    reach = max(high - best, best - low, 1e-3 * abs(best)) * 1.5
    floor = 0.0 if best - reach < 0 else best - reach
    values = np.linspace(floor, best + reach, points)
    objective = fit.objective if fit.objective in ("log-huber", "mse") else "log-huber"
    heights = []
    for value in values:
        held = {**fit.constraints.fixed, name: float(value)}
        try:
            refit = fit_law(
                fit.runs,
                law=fit.law,
                objective="mse" if objective == "mse" else "log-huber",
                delta=fit.delta,
                fixed=held,
                bootstrap=0,
            )
            heights.append(refit.objective_value)
        except FitError:
            heights.append(np.nan)
    return Profile(name=name, value=values, objective=np.array(heights), best=best)


def plot_profile(fit: LawFit, name: str = "E") -> go.Figure:
    """Draw the profile: a flat floor means the runs cannot tell this parameter."""
    view = profile(fit, name)
    drawing = figure(
        f"Profile of {name}: how much worse the best fit gets",
        axis(name),
        axis("objective over its minimum"),
    )
    drawing.add_scatter(
        x=view.value,
        y=view.objective / fit.objective_value,
        mode="lines",
        line={"color": colour(0), "width": 2},
        hovertemplate=f"{name} %{{x:.4g}}: %{{y:.4f}} × the minimum<extra></extra>",
    )
    drawing.add_vline(x=view.best, line={"color": INK, "width": 1, "dash": "dash"})
    if name in fit.intervals:
        low, high = fit.intervals[name]
        drawing.add_vrect(x0=low, x1=high, fillcolor=colour(0), opacity=0.12, line_width=0)
    return drawing


def plot_bootstrap(fit: LawFit, x: str = "alpha", y: str = "beta") -> go.Figure:
    """Draw two parameters of every resample: a long ridge means only a combination is known.

    Raises
    ------
    FitError
        If the fit has no bootstrap sample, or the law no such parameter.
    """
    names = fit.law.param_names
    if fit.samples is None or x not in names or y not in names:
        raise FitError(
            f"there is no bootstrap sample of {x} and {y}: the law has {', '.join(names)}. Fit "
            "with bootstrap=1000."
        )
    drawing = figure("Bootstrap: one point a resample", axis(x), axis(y))
    drawing.add_scatter(
        x=fit.samples[:, names.index(x)],
        y=fit.samples[:, names.index(y)],
        mode="markers",
        name="resample",
        marker={"color": colour(0, 0.35), "size": 4},
        hovertemplate=f"{x} %{{x:.4g}}<br>{y} %{{y:.4g}}<extra></extra>",
    )
    drawing.add_scatter(
        x=[fit.params[x]],
        y=[fit.params[y]],
        mode="markers",
        name="fit",
        marker={"color": colour(3), "symbol": "star", "size": 15},
        hovertemplate=f"fit: {x} %{{x:.4g}}, {y} %{{y:.4g}}<extra></extra>",
    )
    return drawing
