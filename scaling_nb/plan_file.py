"""A plan as a file, for machines without a notebook: ``python -m scaling_nb run plan.json``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .errors import PlanError
from .plan import SweepPlan

_KIND = "scaling_nb plan"


def write_plan(plan: SweepPlan, path: str | os.PathLike[str], *, recipe: str = "") -> Path:
    """Write a plan as JSON; :func:`read_plan` gives the same plan back.

    Parameters
    ----------
    plan : SweepPlan
    path : path-like
    recipe : str
        Where its recipe is defined, ``FILE.py:NAME`` or ``package.module:NAME``: code does not
        go into the file.
    """
    path = Path(path)
    data = {"kind": _KIND, "recipe": recipe, "plan": plan.to_dict()}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return path


def read_plan(path: str | os.PathLike[str]) -> tuple[SweepPlan, str]:
    """Return a plan and where its recipe is defined; nothing is imported or run.

    Raises
    ------
    PlanError
        The file is no plan.
    OSError
        It cannot be read.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["kind"] != _KIND:
            raise KeyError("kind")
        return SweepPlan.from_dict(data["plan"]), str(data["recipe"])
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(
            f"{path} is no plan ({type(error).__name__}: {error}). Write one with `python -m "
            "scaling_nb plan RECIPE --budgets … --out plan.json`, or write_plan(plan, path)."
        ) from None
