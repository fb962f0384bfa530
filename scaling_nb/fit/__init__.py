"""Fits: parametric (Approach 3), IsoFLOP (Approach 2), envelope (Approach 1), and their candour."""

from __future__ import annotations

from .allocate import Allocation
from .backtest import Backtest, backtest
from .compute import FlopModel
from .isoflop import IsoFlopFit, fit_isoflop
from .literature import FrontierFit, published
from .notes import FitWarning
from .parabola import IsoFlopMinimum
from .parametric import fit_law
from .result import LawFit

__all__ = [
    "Allocation",
    "Backtest",
    "FitWarning",
    "FlopModel",
    "FrontierFit",
    "IsoFlopFit",
    "IsoFlopMinimum",
    "LawFit",
    "backtest",
    "fit_isoflop",
    "fit_law",
    "published",
]
