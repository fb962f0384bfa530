"""Neural scaling laws in Jupyter: from a compute budget to a model size, tokens and a loss.

Names arrive lazily: ``import scaling_nb`` loads none of torch, plotly, ipywidgets, pandas or
scipy; the first use of a name loads what that name needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Allocation": "fit",
    "ChinchillaLaw": "laws",
    "DataConstrainedLaw": "laws",
    "FitError": "errors",
    "FitWarning": "fit",
    "FrontierFit": "fit",
    "IsoFlopFit": "fit",
    "KaplanLaw": "laws",
    "LawFit": "fit",
    "PlanError": "errors",
    "PowerLaw": "laws",
    "RecipeError": "errors",
    "Run": "records",
    "RunSpec": "records",
    "RunTable": "records",
    "RunsError": "errors",
    "ScalingError": "errors",
    "ScalingWarning": "errors",
    "TooFewRunsError": "errors",
    "backtest": "fit",
    "fit_isoflop": "fit",
    "fit_law": "fit",
    "published": "fit",
    "simulate": "simulation",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


if TYPE_CHECKING:  # so that type checkers and editors see the names too
    from .errors import (
        FitError as FitError,
        PlanError as PlanError,
        RecipeError as RecipeError,
        RunsError as RunsError,
        ScalingError as ScalingError,
        ScalingWarning as ScalingWarning,
        TooFewRunsError as TooFewRunsError,
    )
    from .fit import (
        Allocation as Allocation,
        FitWarning as FitWarning,
        FrontierFit as FrontierFit,
        IsoFlopFit as IsoFlopFit,
        LawFit as LawFit,
        backtest as backtest,
        fit_isoflop as fit_isoflop,
        fit_law as fit_law,
        published as published,
    )
    from .laws import (
        ChinchillaLaw as ChinchillaLaw,
        DataConstrainedLaw as DataConstrainedLaw,
        KaplanLaw as KaplanLaw,
        PowerLaw as PowerLaw,
    )
    from .records import Run as Run, RunSpec as RunSpec, RunTable as RunTable
    from .simulation import simulate as simulate
