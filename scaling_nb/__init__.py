"""Neural scaling laws in Jupyter: from a compute budget to a model size, tokens and a loss.

Names arrive lazily: ``import scaling_nb`` loads none of torch, plotly, ipywidgets, pandas or
scipy; the first use of a name loads what that name needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Allocation": "fit",
    "AnswerPanel": "ui",
    "ChinchillaLaw": "laws",
    "Classroom": "classroom",
    "Comparison": "fit",
    "CoordinateCheck": "checks",
    "Curve": "curves",
    "Dashboard": "ui",
    "DataConstrainedLaw": "laws",
    "DataError": "errors",
    "EnvelopeFit": "fit",
    "FitError": "errors",
    "FitPanel": "ui",
    "FitWarning": "fit",
    "FrontierFit": "fit",
    "Instructor": "classroom",
    "IsoFlopFit": "fit",
    "KaplanLaw": "laws",
    "LawFit": "fit",
    "LossChart": "ui",
    "LrCheck": "checks",
    "PlanError": "errors",
    "PlanPanel": "ui",
    "PowerLaw": "laws",
    "RayExecutor": "executors",
    "Recipe": "training.recipe",
    "RecipeError": "errors",
    "Result": "api",
    "Run": "records",
    "RunSpec": "records",
    "RunStore": "store",
    "RunTable": "records",
    "RunsError": "errors",
    "ScalingError": "errors",
    "ScalingWarning": "errors",
    "StoreError": "errors",
    "Sweep": "sweep",
    "SweepError": "errors",
    "SweepPlan": "plan",
    "SweepStatus": "sweep",
    "TooFewRunsError": "errors",
    "TrainPanel": "ui",
    "UnknownLawError": "errors",
    "backtest": "fit",
    "compare": "fit",
    "coordinate_check": "checks",
    "find_optimal": "api",
    "fit_envelope": "fit",
    "fit_isoflop": "fit",
    "fit_law": "fit",
    "follow": "api",
    "lr_check": "checks",
    "plan_sweep": "plan",
    "published": "fit",
    "quickstart_plan": "quickstart",
    "quickstart_recipe": "quickstart",
    "read_plan": "plan_file",
    "recorded": "recordings",
    "result_of": "api",
    "simulate": "simulation",
    "write_plan": "plan_file",
}
_ROOMS = ("datasets", "laws", "models", "plots")

__all__ = [
    "Allocation",
    "AnswerPanel",
    "ChinchillaLaw",
    "Classroom",
    "Comparison",
    "CoordinateCheck",
    "Curve",
    "Dashboard",
    "DataConstrainedLaw",
    "DataError",
    "EnvelopeFit",
    "FitError",
    "FitPanel",
    "FitWarning",
    "FrontierFit",
    "Instructor",
    "IsoFlopFit",
    "KaplanLaw",
    "LawFit",
    "LossChart",
    "LrCheck",
    "PlanError",
    "PlanPanel",
    "PowerLaw",
    "RayExecutor",
    "Recipe",
    "RecipeError",
    "Result",
    "Run",
    "RunSpec",
    "RunStore",
    "RunTable",
    "RunsError",
    "ScalingError",
    "ScalingWarning",
    "StoreError",
    "Sweep",
    "SweepError",
    "SweepPlan",
    "SweepStatus",
    "TooFewRunsError",
    "TrainPanel",
    "UnknownLawError",
    "backtest",
    "compare",
    "coordinate_check",
    "find_optimal",
    "fit_envelope",
    "fit_isoflop",
    "fit_law",
    "follow",
    "lr_check",
    "plan_sweep",
    "published",
    "quickstart_plan",
    "quickstart_recipe",
    "read_plan",
    "recorded",
    "result_of",
    "simulate",
    "write_plan",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_ROOMS})


if TYPE_CHECKING:  # so that type checkers and editors see the names too
    from .api import (
        Result as Result,
        find_optimal as find_optimal,
        follow as follow,
        result_of as result_of,
    )
    from .checks import (
        CoordinateCheck as CoordinateCheck,
        LrCheck as LrCheck,
        coordinate_check as coordinate_check,
        lr_check as lr_check,
    )
    from .classroom import (
        Classroom as Classroom,
        Instructor as Instructor,
    )
    from .curves import (
        Curve as Curve,
    )
    from .errors import (
        DataError as DataError,
        FitError as FitError,
        PlanError as PlanError,
        RecipeError as RecipeError,
        RunsError as RunsError,
        ScalingError as ScalingError,
        ScalingWarning as ScalingWarning,
        StoreError as StoreError,
        SweepError as SweepError,
        TooFewRunsError as TooFewRunsError,
        UnknownLawError as UnknownLawError,
    )
    from .executors import (
        RayExecutor as RayExecutor,
    )
    from .fit import (
        Allocation as Allocation,
        Comparison as Comparison,
        EnvelopeFit as EnvelopeFit,
        FitWarning as FitWarning,
        FrontierFit as FrontierFit,
        IsoFlopFit as IsoFlopFit,
        LawFit as LawFit,
        backtest as backtest,
        compare as compare,
        fit_envelope as fit_envelope,
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
    from .plan import (
        SweepPlan as SweepPlan,
        plan_sweep as plan_sweep,
    )
    from .plan_file import (
        read_plan as read_plan,
        write_plan as write_plan,
    )
    from .quickstart import (
        quickstart_plan as quickstart_plan,
        quickstart_recipe as quickstart_recipe,
    )
    from .recordings import (
        recorded as recorded,
    )
    from .records import (
        Run as Run,
        RunSpec as RunSpec,
        RunTable as RunTable,
    )
    from .simulation import (
        simulate as simulate,
    )
    from .store import (
        RunStore as RunStore,
    )
    from .sweep import (
        Sweep as Sweep,
        SweepStatus as SweepStatus,
    )
    from .training.recipe import (
        Recipe as Recipe,
    )
    from .ui import (
        AnswerPanel as AnswerPanel,
        Dashboard as Dashboard,
        FitPanel as FitPanel,
        LossChart as LossChart,
        PlanPanel as PlanPanel,
        TrainPanel as TrainPanel,
    )
