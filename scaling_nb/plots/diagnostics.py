"""What a fit leaves unexplained, and what it cannot tell: residuals, profile, bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ..errors import FitError
from ..fit import LawFit
from ..fit.profile import CHI2_90
from ..records import loss_unit
from .style import INK, axis, colour, drawn_rows, figure

Array = NDArray[np.float64]
Against = Literal["C", "N", "D", "L"]

_FAR = 5.0
"""Robust standard deviations beyond which a residual is marked."""


def _axis_words(against: Against, unit: str) -> tuple[str, str]:
    """Return an axis' title and unit, where D counts `unit`."""
    return {
        "C": ("training compute C", "FLOP"),
        "N": ("model size N", "parameters"),
        "D": (f"training {unit} D", unit),
        "L": ("held-out loss", loss_unit(unit)),
    }[against]


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
        axis(*_axis_words(against, fit.unit), log=True, values=None if against == "C" else view.x),
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


_PROFILED = {"E": "irreducible loss E", "exponent_N": "exponent a of N* ∝ C^a"}


def plot_profile(fit: LawFit, name: Literal["E", "exponent_N"] = "E") -> go.Figure:
    """Draw how much worse the best fit gets with E or the exponent a held at each value.

    The band is the 90 % interval, where the rise is below 2.71; a flat floor means that the runs
    cannot tell.

    Raises
    ------
    FitError
        If the fit has no such profile.
    """
    if name not in fit.profiles:
        raise FitError(
            f"there is no profile of {name!r}; there is one of {', '.join(fit.profiles) or 'none'}."
            " Fit a law in which E, alpha and beta are free to runs, with bootstrap=1000."
        )
    view = fit.profiles[name]
    label = _PROFILED[name]
    best = fit.exponent_N if name == "exponent_N" else fit.params[name]
    drawing = figure(
        f"Profile of the {label}",
        axis(label, loss_unit(fit.unit) if name == "E" else ""),
        axis("rise of the objective, in units of χ²"),
    )
    drawing.add_scatter(
        x=view.values,
        y=view.rise,
        mode="lines+markers",
        line={"color": colour(0), "width": 2},
        hovertemplate="%{x:.4g}: %{y:.3g}<extra></extra>",
    )
    drawing.add_vline(x=best, line={"color": INK, "width": 1, "dash": "dash"})
    drawing.add_hline(y=CHI2_90, line={"color": INK, "width": 1, "dash": "dot"})
    low, high = np.clip(view.interval, view.values[0], view.values[-1])
    drawing.add_vrect(x0=low, x1=high, fillcolor=colour(0), opacity=0.12, line_width=0)
    return drawing.update_layout(showlegend=False)


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
