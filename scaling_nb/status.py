"""A sweep at one moment, as a record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .cost import format_seconds
from .records import Status

SweepState = Literal["new", "running", "paused", "finished", "cancelled", "failed"]

ENDED: frozenset[str] = frozenset({"finished", "diverged", "skipped"})
"""States of runs that are not trained again when a sweep goes on; ``retry`` does."""

OPEN: frozenset[str] = frozenset({"queued", "running", "paused"})
"""States of runs that are still to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepStatus:
    """A sweep at one moment.

    Attributes
    ----------
    state : str
        ``new``, ``running``, ``paused``, ``finished``, ``cancelled`` or ``failed``.
    runs : mapping of run_id to status
    n_runs, n_done : int
        Planned runs, and those that ended in one way or another.
    elapsed : float, seconds
        Since the start.
    eta : float, seconds
        Until the end; NaN before there is anything to judge by.
    loss : mapping of run_id to float, nats per token
        Newest training loss.
    tokens_seen : mapping of run_id to int, tokens
    where : mapping of run_id to str
        Device, after its machine where that is another, on which a run trains or trained.
    problem : str
        Why the sweep waits or failed, with the remedy; empty where nothing is wrong.
    """

    state: SweepState
    runs: Mapping[str, Status] = field(repr=False)
    n_runs: int
    n_done: int
    elapsed: float
    eta: float
    loss: Mapping[str, float] = field(repr=False)
    tokens_seen: Mapping[str, int] = field(repr=False)
    where: Mapping[str, str] = field(default_factory=dict, repr=False)
    problem: str = ""

    def eta_text(self) -> str:
        """Return ``ETA 45 s``, or nothing before there is anything to judge by."""
        known = math.isfinite(self.eta) and self.state in ("running", "paused")
        return f"ETA {format_seconds(self.eta)}" if known else ""

    def __str__(self) -> str:
        done = f"{self.state}: {self.n_done}/{self.n_runs} runs"
        return ", ".join(part for part in (done, self.eta_text(), self.problem) if part)
