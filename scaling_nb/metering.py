"""What a sweep takes while it runs: seconds of training and the most memory, to hold against plans.

Memory is what this process and its workers have of their own beyond what this process had before:
sampled twice a second, so a peak between two looks is missed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a sweep took, or was foreseen to take.

    Attributes
    ----------
    seconds : float, seconds
        Without pauses.
    peak_bytes : int, bytes
    """

    seconds: float
    peak_bytes: int


class Meter:
    """Measures from :meth:`start` to :meth:`stop`, on a thread of its own.

    Parameters
    ----------
    training : function
        Whether training goes on; seconds in which it does not are left out.
    workers : function
        Returns the process ids of the workers.
    """

    def __init__(self, training: Callable[[], bool], workers: Callable[[], Iterable[int]]) -> None:
        self._training, self._workers = training, workers
        self._end = threading.Event()
        self._seconds = 0.0
        self._before = self._peak = 0
        self._last = 0.0
        self._trained = True

    def start(self) -> None:
        """Begin to measure."""
        self._before = _own_bytes(psutil.Process())
        self._last = time.monotonic()
        threading.Thread(target=self._look_on, name="meter", daemon=True).start()

    def stop(self) -> Taken:
        """End, and return what was taken."""
        self._end.set()
        self._look()
        return Taken(seconds=self._seconds, peak_bytes=self._peak)

    def _look_on(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        now, trains = time.monotonic(), self._training()
        if self._trained or trains:
            self._seconds += now - self._last
        self._last, self._trained = now, trains
        workers = sum(_own_bytes_of(pid) for pid in self._workers())
        self._peak = max(self._peak, _own_bytes(psutil.Process()) - self._before + workers)


def _own_bytes(process: psutil.Process) -> int:
    """Memory that would be free again without this process; shared libraries do not count."""
    try:
        return int(process.memory_full_info().uss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)


def _own_bytes_of(pid: int) -> int:
    try:
        return _own_bytes(psutil.Process(pid))
    except psutil.Error:
        return 0
