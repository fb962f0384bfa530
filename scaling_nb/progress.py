"""How far a sweep is, and how long it will take, judged by the steps it has taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from .cost import COOLDOWN, makespan
from .records import RunSpec

Remaining = tuple[float, float]
"""(steps left, FLOP of one step) of a job."""


def remaining_steps(job: Sequence[RunSpec], seen: Mapping[str, int]) -> Remaining:
    """Return the steps a trunk and its open branches still take, and one step's FLOP.

    Parameters
    ----------
    job : sequence of RunSpec
        The trunk's runs that have not ended, shortest first.
    seen : mapping of run_id to int, tokens
        Tokens each has trained so far, its trunk's included.
    """
    if not job:
        return 0.0, 0.0
    longest = job[-1]
    done = max(seen.get(spec.run_id, 0) for spec in job)
    # The trunk's progress is that of whichever branch is in training.
    left = float(longest.n_tokens - min(done, longest.n_tokens))
    left += sum(COOLDOWN * spec.n_tokens for spec in job[:-1])
    return left / longest.tokens_per_step, longest.flops_per_token * longest.tokens_per_step


class StepClock:
    """Seconds a step takes, by its FLOP, learned from the steps of a running sweep.

    Thread-safe. A step costs a + b · FLOP; both are learned by least squares from the rates seen
    at each size, so sizes that have not started are judged by those that have.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._seen: dict[float, tuple[float, float]] = {}

    def begin(self, spec: RunSpec) -> None:
        """Start a run's clock: what its trunk waited for, other jobs' turns, is no step's time."""
        with self._lock:
            self._last[spec.trunk_id] = self._now()

    def note(self, spec: RunSpec, n_steps: int) -> None:
        """Count steps just taken by a run."""
        now = self._now()
        flops = spec.flops_per_token * spec.tokens_per_step
        with self._lock:
            before = self._last.get(spec.trunk_id)
            self._last[spec.trunk_id] = now
            # A burst is a branch that inherits its trunk's curve: no time was spent on it.
            if before is not None and n_steps < 10_000 * (now - before):
                seconds, steps = self._seen.get(flops, (0.0, 0.0))
                self._seen[flops] = (seconds + now - before, steps + n_steps)

    def interrupt(self) -> None:
        """Take out a pause: what lies before it is not the next step's beginning."""
        with self._lock:
            self._last.clear()

    def eta(self, jobs: Sequence[Remaining], workers: int) -> float:
        """Return seconds until all jobs are done by `workers` at once; NaN if unknown."""
        open_jobs = [(steps, flops) for steps, flops in jobs if steps > 0]
        if not open_jobs:
            return 0.0
        with self._lock:
            seen = {f: s / n for f, (s, n) in self._seen.items() if n >= 5}
        if not seen:
            return float("nan")
        seconds = [steps * _seconds_of(flops, seen) for steps, flops in open_jobs]
        return makespan(seconds, workers)


def _seconds_of(flops: float, seen: Mapping[float, float]) -> float:
    if flops in seen:
        return seen[flops]
    points = sorted(seen.items())
    below = [p for p in points if p[0] < flops]
    above = [p for p in points if p[0] > flops]
    if below and above:
        (x0, y0), (x1, y1) = below[-1], above[0]
        return y0 + (y1 - y0) * (flops - x0) / (x1 - x0)
    # Beyond what was seen: overhead keeps a small step from getting cheaper in proportion.
    x, y = points[-1] if below else points[0]
    return y * max(1.0, flops / x)
