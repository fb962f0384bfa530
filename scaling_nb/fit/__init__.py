"""Fits: parametric (Approach 3), IsoFLOP (Approach 2), envelope (Approach 1), and their candour."""

from __future__ import annotations

from .allocation import Allocation
from .backtest import Backtest, backtest
from .comparison import Comparison, compare
from .compute import FlopModel
from .envelope import EnvelopeFit, fit_envelope
from .isoflop import IsoFlopFit, fit_isoflop
from .literature import FrontierFit, published
from .notes import FitWarning
from .parabola import IsoFlopMinimum
from .parametric import fit_law
from .result import LawFit

__all__ = [
    "Allocation",
    "Backtest",
    "Comparison",
    "EnvelopeFit",
    "FitWarning",
    "FlopModel",
    "FrontierFit",
    "IsoFlopFit",
    "IsoFlopMinimum",
    "LawFit",
    "backtest",
    "compare",
    "fit_envelope",
    "fit_isoflop",
    "fit_law",
    "published",
]
