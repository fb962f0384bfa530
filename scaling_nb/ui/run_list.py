"""The table of runs as a widget: sortable, and where runs are excluded, retried and skipped."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..records import TOKENS, RunTable
from .comms import keep_listening
from .snapshot import Snapshot

Row = dict[str, Any]
Order = Callable[[str, tuple[str, ...], str], object]

_TRAINING = ("size", "progress", "speed", "eta", "where")


def columns_of(unit: str) -> list[tuple[str, str, str]]:
    """Return key, heading and explanation of every column, where D counts `unit`."""
    return [
        ("id", "run", "what the run is called, in warnings and in the CSV"),
        (
            "state",
            "state",
            "planned, queued, running, finished, diverged, failed, cancelled, skipped",
        ),
        ("where", "on", "device, after its machine where that is another"),
        ("size", "size", "value of the argument that sets the model's size"),
        ("seed", "seed", "which repeat of the run this is"),
        ("budget", "budget", "IsoFLOP budget the run was planned for, FLOP"),
        ("N", "N", "model size, parameters"),
        ("D", "D", f"{unit} the run trains on"),
        ("ratio", "D/N", f"{unit} per parameter"),
        ("C", "C", "compute the run spends, FLOP"),
        ("loss", "loss", "held-out loss once finished, training loss before"),
        ("progress", "done", f"share of its {unit} trained"),
        ("speed", "D/s", f"{unit} per second just now"),
        ("eta", "left", "seconds until the run ends"),
        ("reason", "note", "why the run is excluded, or how it failed"),
    ]


class RunList(anywidget.AnyWidget):
    """A native HTML table; orders come back through `on_order(verb, ids, reason)`."""

    _esm = Path(__file__).with_suffix(".js")
    columns: Any = traitlets.List([]).tag(sync=True)
    rows: Any = traitlets.List([]).tag(sync=True)
    verbs = traitlets.List(["exclude", "restore"]).tag(sync=True)

    def __init__(
        self, on_order: Order, verbs: list[str], *, trains: bool = True, unit: str = TOKENS
    ) -> None:
        self._order = on_order
        # What is trained here is known by its size and budget; a table's runs by their names.
        hidden = ("id",) if trains else _TRAINING
        shown = [list(c) for c in columns_of(unit) if c[0] not in hidden]
        super().__init__(verbs=verbs, columns=shown)
        keep_listening(self)
        self.on_msg(self._on_message)

    def _on_message(self, _: Any, content: dict[str, Any], __: Any) -> None:
        verb = str(content.get("verb"))
        if verb in self.verbs:
            self._order(verb, tuple(content["ids"]), str(content.get("reason", "")))


def rows_of(snapshot: Snapshot) -> list[Row]:
    """Return one row a run: planned ones with where they stand, or those of a table."""
    if snapshot.sweep is None and snapshot.plan is not None:
        return [_planned_row(snapshot, run, {}, {}) for run in snapshot.plan.runs]
    if snapshot.sweep is None:
        return [] if snapshot.runs is None else _table_rows(snapshot.runs)
    finished = {} if snapshot.runs is None else {r["id"]: r for r in _table_rows(snapshot.runs)}
    failed = {run.run_id: run.message for run in snapshot.sweep.failures}
    return [_planned_row(snapshot, run, finished, failed) for run in snapshot.sweep.plan.runs]


def _planned_row(
    snapshot: Snapshot, run: Any, finished: dict[str, Row], failed: dict[str, str]
) -> Row:
    status = snapshot.status
    state = status.runs.get(run.run_id, "queued") if status else "planned"
    seen = status.tokens_seen.get(run.run_id, 0) if status else 0
    loss = status.loss.get(run.run_id, math.nan) if status else math.nan
    speed = snapshot.speeds.get(run.run_id, math.nan)
    done = finished.get(run.run_id)
    left = (run.n_tokens - seen) / speed if speed > 0 else math.nan
    return _plain(
        {
            "id": run.run_id,
            "state": done["state"] if done else state,
            "size": run.size,
            "seed": run.seed,
            "budget": run.budget,
            "N": run.n_params,
            "D": run.n_tokens,
            "ratio": run.tokens_per_param,
            "C": run.compute,
            "loss": done["loss"] if done else loss,
            "progress": 1.0 if done else seen / run.n_tokens,
            "speed": speed,
            "eta": left if state == "running" else math.nan,
            "where": status.where.get(run.run_id, "") if status else "",
            "reason": done["reason"] if done else failed.get(run.run_id, ""),
        }
    )


def _table_rows(runs: RunTable) -> list[Row]:
    names = ("run_id", "size", "seed", "budget", "N", "D", "C", "loss", "status", "excluded")
    columns = [runs.columns[name] for name in names]
    return [
        _plain(
            {
                "id": str(run_id),
                "state": "excluded" if excluded else str(status),
                "size": size,
                "seed": seed,
                "budget": budget,
                "N": n,
                "D": d,
                "ratio": d / n if n else math.nan,
                "C": c,
                "loss": loss,
                "progress": 1.0,
                "speed": math.nan,
                "eta": math.nan,
                "where": "",
                "reason": str(excluded),
            }
        )
        for run_id, size, seed, budget, n, d, c, loss, status, excluded in zip(
            *columns, strict=True
        )
    ]


def _plain(row: Row) -> Row:
    """Return JSON's own types, four digits, None where there is nothing."""
    plain: Row = {}
    for name, value in row.items():
        if isinstance(value, str):
            plain[name] = value
        elif value is None or not math.isfinite(float(value)):
            plain[name] = None
        else:
            plain[name] = float(f"{float(value):.5g}")
    return plain
