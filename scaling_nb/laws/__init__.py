"""Scaling laws: formulas with named parameters. One file adds a law."""

from __future__ import annotations

from collections.abc import Mapping
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

LAWS: Mapping[str, type[Law]] = {
    law.__name__: law for law in (ChinchillaLaw, KaplanLaw, PowerLaw, DataConstrainedLaw)
}
"""Every law, by class name."""


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
