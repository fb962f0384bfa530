"""What a sweep says while it trains, gathered on its workers' threads and read on the ticker's."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from ..events import Event, RunFailed, RunFinished, RunStarted, StepLogged

if TYPE_CHECKING:
    from ..sweep import Sweep


class Steps(Protocol):
    """Hears of steps on workers' threads: take a lock, append, return."""

    def begin(self, key: str) -> object:
        """Hear that a run begins, or begins anew."""

    def append(self, key: str, x: Any, y: Any) -> object:
        """Hear of new points of its curve: tokens and losses."""


_MEASURED = 5.0


class SweepFeed:
    """Hears a sweep's events; training steps go straight to the charts' buffers.

    Parameters
    ----------
    sweep : Sweep
    steps : list of Steps
        May change meanwhile.
    """

    def __init__(self, sweep: Sweep, steps: list[Steps]) -> None:
        self.sweep, self._steps = sweep, steps
        self._inbox: deque[Event] = deque()
        self._seen: dict[str, tuple[float, int]] = {}
        self.close = sweep.events.connect(self._receive)

    def _receive(self, event: Event) -> None:
        if isinstance(event, StepLogged):
            for steps in tuple(self._steps):
                steps.append(event.run_id, event.tokens, event.loss)
        else:
            if isinstance(event, RunStarted):
                for steps in tuple(self._steps):
                    steps.begin(event.spec.run_id)
            self._inbox.append(event)

    def read(self) -> tuple[list[str], bool]:
        """Return what happened since the last call, as sentences, and whether a run finished."""
        plan = self.sweep.plan
        sizes = {run.run_id: f"{plan.size_name}={run.size:g}" for run in plan.runs}
        said, finished = [], False
        while self._inbox:
            event = self._inbox.popleft()
            match event:
                case RunStarted(spec=spec):
                    said.append(f"{sizes.get(spec.run_id, '')} at {spec.budget:.3g} FLOP started")
                case RunFinished(run=run):
                    finished = True
                    said.append(
                        f"{sizes.get(run.run_id, '')} at {run.budget:.3g} FLOP finished: held-out "
                        f"loss {run.loss:.4f}"
                    )
                case RunFailed(run=run):
                    said.append(
                        f"{sizes.get(run.run_id, '')} at {run.budget:.3g} FLOP {run.status}: "
                        f"{run.message}"
                    )
                case _:
                    pass
        return said, finished

    def speeds(self) -> dict[str, float]:
        """Return tokens per second of the runs in training, over the last seconds."""
        now, status = time.monotonic(), self.sweep.status()
        speeds = {}
        for run_id, state in status.runs.items():
            if state != "running":
                self._seen.pop(run_id, None)
                continue
            tokens = status.tokens_seen.get(run_id, 0)
            then, before = self._seen.setdefault(run_id, (now, tokens))
            if now - then > 0.5:
                speeds[run_id] = (tokens - before) / (now - then)
            if now - then > _MEASURED:
                self._seen[run_id] = (now, tokens)
        return speeds
