"""What runs have told, kept until their driver has taken it, and again for the next driver.

Points of a curve are told once: they are known by run and tokens seen, so what a message brings a
second time is dropped, and what a restarted run trains anew takes the old curve's place.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ..events import Event, RunFailed, RunFinished, RunStarted, StepLogged

KEPT_SECONDS = 60.0
"""How long an ended run is kept after it was taken: by then its driver has stored it."""


@dataclass
class _Run:
    """One run's story, and how much of it has been taken."""

    started: RunStarted | None = None
    pieces: list[StepLogged] = field(default_factory=list)
    ended: RunFinished | RunFailed | None = None
    tokens: int = -1
    taken: int = 0
    """Parts taken: 1 for the start, 1 for each piece, 1 for the end."""
    taken_at: float = 0.0

    def put(self, event: RunStarted | StepLogged | RunFinished | RunFailed) -> None:
        if isinstance(event, RunStarted):
            self.started, self.pieces, self.ended = event, [], None
            self.tokens, self.taken = -1, 0
        elif isinstance(event, StepLogged):
            new = event.tokens > self.tokens
            if new.any():
                self.pieces.append(
                    StepLogged(run_id=event.run_id, tokens=event.tokens[new], loss=event.loss[new])
                )
                self.tokens = int(event.tokens[-1])
        elif self.ended is None:
            self.ended = event

    def take(self) -> list[Event]:
        """Return what has not been taken: a start, one joined piece, an end."""
        story: list[Event] = [
            *([self.started] if self.started else []),
            *self.pieces,
            *([self.ended] if self.ended else []),
        ]
        new, self.taken, self.taken_at = story[self.taken :], len(story), time.monotonic()
        steps = [event for event in new if isinstance(event, StepLogged)]
        if len(self.pieces) > 1 and self.ended is None:
            self._join()
        if len(steps) < 2:
            return new
        first = new.index(steps[0])
        return [*new[:first], joined(steps), *new[first + len(steps) :]]

    def _join(self) -> None:
        """Keep many small pieces as one: a long run tells thousands."""
        self.taken -= len(self.pieces) - 1
        self.pieces = [joined(self.pieces)]


def joined(pieces: list[StepLogged]) -> StepLogged:
    """Return consecutive pieces of one curve as one."""
    return StepLogged(
        run_id=pieces[0].run_id,
        tokens=np.concatenate([piece.tokens for piece in pieces]),
        loss=np.concatenate([piece.loss for piece in pieces]),
    )


class Mailbox:
    """Events by run. Not thread-safe: its owner's event loop guards it."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._changed: dict[str, None] = {}
        self._others: list[Event] = []

    def put(self, event: Event) -> None:
        """Take in what a run, or the cluster, tells."""
        match event:
            case RunStarted(spec=spec):
                run_id = spec.run_id
            case StepLogged(run_id=run_id):
                pass
            case RunFinished(run=run) | RunFailed(run=run):
                run_id = run.run_id
            case _:
                self._others.append(event)
                return
        self._runs.setdefault(run_id, _Run()).put(event)
        self._changed[run_id] = None

    def __bool__(self) -> bool:
        return bool(self._changed or self._others)

    def take(self) -> list[Event]:
        """Return what is new since the last call, of each run in its order."""
        events, self._others = self._others, []
        for run_id in self._changed:
            events += self._runs[run_id].take()
        self._changed = {}
        self._forget()
        return events

    def rewind(self, wanted: Iterable[str]) -> None:
        """Have everything of these runs taken again, by a new driver; forget all others."""
        self._runs = {key: self._runs[key] for key in wanted if key in self._runs}
        for run in self._runs.values():
            run.taken = 0
        self._changed = dict.fromkeys(self._runs)

    def reopen(self, run_id: str) -> None:
        """Forget a run that is to be trained again."""
        self._runs.pop(run_id, None)
        self._changed.pop(run_id, None)

    def ended(self, run_id: str) -> bool:
        """Whether a run has told its end."""
        return run_id in self._runs and self._runs[run_id].ended is not None

    def _forget(self) -> None:
        long_ago = time.monotonic() - KEPT_SECONDS
        gone = [
            run_id
            for run_id, run in self._runs.items()
            if run.ended is not None and run.taken_at < long_ago
        ]
        for run_id in gone:
            del self._runs[run_id]
