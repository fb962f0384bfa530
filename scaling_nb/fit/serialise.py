"""A fit as JSON and back. Of the runs the hash remains, and which were left out and why."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FitError
from ..laws import Constraints, law_from_spec
from ..records import TOKENS
from .allocation import Scope
from .compute import FlopModel
from .held_out import HeldOut
from .notes import FitWarning
from .profile import Profile

_FORMAT = 2
_PLAIN = (
    "status", "objective", "delta", "n_runs", "data_hash", "source", "resampled", "level",
)  # fmt: skip


def encode(fit: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a :class:`LawFit` as a JSON-ready mapping."""
    return {
        "format": _FORMAT,
        "law": fit["law"].to_spec(),
        "params": dict(fit["params"]),
        "intervals": {k: list(v) for k, v in fit["intervals"].items()},
        "profiles": {
            name: {
                "values": p.values.tolist(),
                "rise": p.rise.tolist(),
                "interval": list(p.interval),
            }
            for name, p in fit["profiles"].items()
        },
        "held_out": None if fit["held_out"] is None else asdict(fit["held_out"]),
        "objective_value": _finite(fit["objective_value"]),
        "warnings": [note.to_dict() for note in fit["warnings"]],
        "scope": None
        if fit["scope"] is None
        else {k: v if k == "unit" else list(v) for k, v in asdict(fit["scope"]).items()},
        "constraints": {
            "fixed": dict(fit["constraints"].fixed),
            "shared": list(fit["constraints"].shared),
        },
        "excluded": {str(k): str(v) for k, v in fit["excluded"].items()},
        "flops": fit["flops"].to_dict(),
        "samples": None if fit["samples"] is None else fit["samples"].tolist(),
        **{name: fit[name] for name in _PLAIN},
    }


def decode(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a :class:`LawFit` that :func:`encode` wrote."""
    if data.get("format") != _FORMAT:
        raise FitError(f"this file has format {data.get('format')!r}, but {_FORMAT} is needed.")
    scope = data["scope"]
    value = data["objective_value"]
    return {
        "law": law_from_spec(data["law"]),
        "params": dict(data["params"]),
        "intervals": {k: tuple(v) for k, v in data["intervals"].items()},
        "profiles": {
            name: Profile(
                name=name,
                values=np.array(p["values"], float),
                rise=np.array(p["rise"], float),
                interval=tuple(p["interval"]),
            )
            for name, p in data["profiles"].items()
        },
        "held_out": None if data["held_out"] is None else HeldOut(**data["held_out"]),
        "objective_value": float("nan") if value is None else value,
        "warnings": tuple(FitWarning.from_dict(note) for note in data["warnings"]),
        "scope": None
        if scope is None
        else Scope(
            **{name: tuple(scope[name]) for name in ("N", "D", "C")},
            unit=scope.get("unit", TOKENS),
        ),
        "constraints": Constraints(
            fixed=dict(data["constraints"]["fixed"]), shared=tuple(data["constraints"]["shared"])
        ),
        "excluded": dict(data.get("excluded", {})),
        "flops": FlopModel(**data["flops"]),
        "samples": None if data["samples"] is None else np.array(data["samples"], float),
        **{name: data[name] for name in _PLAIN},
    }


def read(source: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Parse JSON text, or the file at a path."""
    text = os.fspath(source)
    if not text.lstrip().startswith("{"):
        text = Path(text).read_text(encoding="utf-8")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise FitError(f"this is not a fit in JSON: {error}.") from error
    return dict(data)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
