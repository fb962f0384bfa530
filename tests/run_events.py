"""What the events of a job tell of its runs."""

from __future__ import annotations

import numpy as np

from scaling_nb.events import RunFinished, RunStarted, StepLogged


def ended(events):
    """Return the loss of each run that finished."""
    return {e.run.run_id: e.run.loss for e in events if isinstance(e, RunFinished)}


def curves(events):
    """Return the curve of each run as the store would have it: a start begins it anew."""
    found: dict[str, list[StepLogged]] = {}
    for event in events:
        if isinstance(event, RunStarted):
            found[event.spec.run_id] = []
        elif isinstance(event, StepLogged):
            found[event.run_id].append(event)
    return {
        run_id: np.concatenate([[p.tokens, p.loss] for p in parts], axis=1).tolist()
        for run_id, parts in found.items()
    }
