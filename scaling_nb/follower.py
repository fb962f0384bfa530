"""Watching a sweep that another process trains: its store, read again and again, as events."""

from __future__ import annotations

from collections.abc import Mapping

from .events import Event, RunFailed, RunFinished, RunStarted, StepLogged
from .records import Run, RunSpec
from .store import RunStore

POLL_SECONDS = 0.5


class Follower:
    """Turns what has changed in a store since the last look into events.

    Not thread-safe.

    Parameters
    ----------
    store : RunStore
    specs : mapping of run_id to RunSpec
        Runs to watch.
    known : mapping of run_id to Run
        Those that the watcher knows to have ended.
    """

    def __init__(
        self, store: RunStore, specs: Mapping[str, RunSpec], known: Mapping[str, Run]
    ) -> None:
        self._store, self._specs = store, specs
        self._known = dict(known)
        self._seen: dict[str, tuple[int, int]] = {}

    def look(self) -> list[Event]:
        """Return what has happened since the last look, oldest first for each run."""
        events: list[Event] = []
        results = self._store.runs()
        for run_id, first_chunk, n_points in self._store.curve_sizes():
            if run_id in self._specs and run_id not in self._known:
                events += self._curve_events(run_id, first_chunk, n_points)
        for run_id in self._specs.keys() & results.keys():
            run = results[run_id]
            if str(self._known.get(run_id)) != str(run):
                self._known[run_id] = run
                finished = run.status == "finished"
                events.append(RunFinished(run=run) if finished else RunFailed(run=run))
        return events

    def _curve_events(self, run_id: str, first_chunk: int, n_points: int) -> list[Event]:
        begun, seen = self._seen.get(run_id, (-1, 0))
        if begun == first_chunk and seen == n_points:
            return []
        tokens, loss = self._store.curve(run_id)
        events: list[Event] = []
        if begun != first_chunk or len(tokens) < seen:
            events.append(RunStarted(spec=self._specs[run_id]))
            seen = 0
        self._seen[run_id] = (first_chunk, len(tokens))
        return [*events, StepLogged(run_id=run_id, tokens=tokens[seen:], loss=loss[seen:])]
