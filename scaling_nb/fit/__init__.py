"""Fits: parametric (Approach 3), IsoFLOP (Approach 2), envelope (Approach 1), and their candour."""

from __future__ import annotations

from .allocate import Allocation
from .backtest import Backtest, backtest
from .compute import FlopModel
from .notes import FitWarning
from .parametric import fit_law
from .result import LawFit

__all__ = ["Allocation", "Backtest", "FitWarning", "FlopModel", "LawFit", "backtest", "fit_law"]
