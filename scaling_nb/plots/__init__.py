"""Figures: each is a small typed value first, then a ``go.Figure``."""

from __future__ import annotations

from .comparison import comparison_bars, plot_comparison
from .curves import curve_lines, plot_curves
from .diagnostics import plot_bootstrap, plot_profile, plot_residuals, residuals
from .frontier import frontier, plot_frontier
from .isoflop import isoflop_curves, plot_isoflop
from .report import Notes, answer_sentence, fit_report, html_report, sweep_report
from .still import isoflop_svg
from .surface import plot_surface, surface_view

__all__ = [
    "Notes",
    "answer_sentence",
    "comparison_bars",
    "curve_lines",
    "fit_report",
    "frontier",
    "html_report",
    "isoflop_curves",
    "isoflop_svg",
    "plot_bootstrap",
    "plot_comparison",
    "plot_curves",
    "plot_frontier",
    "plot_isoflop",
    "plot_profile",
    "plot_residuals",
    "plot_surface",
    "residuals",
    "surface_view",
    "sweep_report",
]
