"""Scaling laws: formulas with named parameters.

One file adds a law: every concrete :class:`Law` that is defined in a file of this folder is found,
stands in :data:`LAWS`, and is a name of this package.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ..errors import FitError
from .base import Constraints, Law, Parameter, Surface
from .chinchilla import ChinchillaLaw
from .data_constrained import DataConstrainedLaw
from .kaplan import KaplanLaw
from .numeric import NumericLaw
from .power_law import PowerLaw

__all__ = [
    "LAWS",
    "ChinchillaLaw",
    "Constraints",
    "DataConstrainedLaw",
    "KaplanLaw",
    "Law",
    "NumericLaw",
    "Parameter",
    "PowerLaw",
    "Surface",
    "law_from_spec",
]


def _found() -> Iterator[type[Law]]:
    """Yield the concrete laws of this folder's files, by file, in the order of their definition.

    This runs when the names above are bound, so that a law's file may import them from here.
    """
    for file in iter_modules(__path__, f"{__name__}."):
        module = import_module(file.name)
        for value in vars(module).values():
            if (
                inspect.isclass(value)
                and issubclass(value, Law)
                and value.__module__ == file.name
                and not inspect.isabstract(value)
            ):
                yield value


LAWS: Mapping[str, type[Law]] = {law.__name__: law for law in _found()}
"""Every law, by class name."""
globals().update(LAWS)


def law_from_spec(spec: Mapping[str, Any]) -> Law:
    """Return the law that :meth:`Law.to_spec` described.

    Raises
    ------
    FitError
        If the law is unknown.
    """
    options = dict(spec)
    name = options.pop("law", None)
    if name not in LAWS:
        raise FitError(f"law {name!r} is unknown. It must be one of {', '.join(LAWS)}.")
    return LAWS[name](**options)
