"""The published tables and their certified fits, where `shared/fits` stands beside the repository.

The tables may not be shipped; tests that need them are skipped where they are absent.
"""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling_nb.records import Run, RunTable

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "fits"
needs_referee = pytest.mark.skipif(
    not (FOLDER / "reference.json").exists(), reason="the published tables are not beside the repo"
)
OBJECTIVES = {
    "huber_1e-3": {"objective": "log-huber", "delta": 1e-3},
    "huber_1e-4": {"objective": "log-huber", "delta": 1e-4},
    "mse": {"objective": "mse"},
}


@cache
def reference() -> dict[str, Any]:
    """Return reference.json, empty where it is absent."""
    path = FOLDER / "reference.json"
    return json.loads(path.read_text()) if path.exists() else {}


def cases() -> list[tuple[str, str]]:
    """Return every (view, objective) that has a certified optimum."""
    return [
        (name, objective)
        for name, entry in reference().items()
        if name != "_meta"
        for objective in OBJECTIVES
        if entry.get(objective)
    ]


def _number(text: str) -> float:
    return float(text) if text else float("nan")


def _keep(view: str, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Apply a view of `_meta.views`."""
    if view == "tpp_gt1":
        return [r for r in rows if float(r["tokens_D"]) / float(r["params_N"]) > 1]
    if view == "ep_le_1":
        return [r for r in rows if float(r["epochs"]) <= 1]
    if view == "clean" and "outlier" in rows[0]:
        return [r for r in rows if r["outlier"] == "False"]
    if view == "clean":
        best: dict[tuple[str, str], dict[str, str]] = {}
        for r in rows:
            if r["final_step"] == r["planned"]:
                key = (r["params_N"], r["budget"])
                if key not in best or float(r["loss"]) < float(best[key]["loss"]):
                    best[key] = r
        return list(best.values())
    return rows


@cache
def table(name: str) -> RunTable:
    """Return one published table, or a view of it (``name__view``)."""
    base, _, view = name.partition("__")
    with (FOLDER / f"{base}.csv").open(newline="") as file:
        rows = _keep(view, list(csv.DictReader(file)))
    return RunTable.from_runs(
        Run(
            run_id=r["run_id"],
            N=float(r["params_N"]),
            D=float(r["tokens_D"]),
            C=float(r["flops_C"]),
            loss=float(r["loss"]),
            budget=_number(r["budget"]),
            unique_tokens=_number(r.get("unique_tokens", "")),
        )
        for r in rows
    )


def legacy_counts(n_runs: int, n_samples: int, seed: int) -> np.ndarray:
    """Return the multiplicities of Epoch AI's resamples: ``np.random.choice`` after a seed."""
    state = np.random.RandomState(seed)
    drawn = [state.choice(n_runs, n_runs) for _ in range(n_samples)]
    return np.stack([np.bincount(d, minlength=n_runs) for d in drawn]).astype(float)
