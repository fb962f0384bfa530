"""What a sweep takes while it runs: seconds of training and the most memory, to hold against plans.

Memory is that of the devices where training is on GPUs, and else what this process and its workers
have of their own beyond what this process had before.
Linux remembers the most that a process had; elsewhere it is sampled twice a second, and a peak
between two looks is missed.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

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
    on_devices : function, optional
        Returns the most bytes taken on GPUs so far; then the host's are not measured.
    """

    def __init__(
        self,
        training: Callable[[], bool],
        workers: Callable[[], Iterable[int]],
        on_devices: Callable[[], int] | None = None,
    ) -> None:
        self._training, self._workers = training, workers
        self._on_devices = on_devices
        self._end = threading.Event()
        self._seconds = 0.0
        self._before = self._peak = 0
        self._last = 0.0
        self._trained = True

    def start(self) -> None:
        """Begin to measure."""
        own = psutil.Process()
        _give_back_free_memory()
        for pid in (own.pid, *self._workers()):
            _forget_peak(pid)
        self._before = _own_peak(own)
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
        if self._on_devices is not None:
            self._peak = max(self._peak, self._on_devices())
            return
        workers = sum(own_bytes(pid) for pid in self._workers())
        self._peak = max(self._peak, _own_peak(psutil.Process()) - self._before + workers)


def own_bytes(pid: int) -> int:
    """Return the most memory of its own that a process had; 0 where it has ended."""
    try:
        return _own_peak(psutil.Process(pid))
    except psutil.Error:
        return 0


def _own_peak(process: psutil.Process) -> int:
    """Return what would be free again without a process, at its most; not shared libraries."""
    try:
        now = process.memory_full_info()
        own, resident = int(now.uss), int(now.rss)
    except psutil.AccessDenied:
        own = resident = int(process.memory_info().rss)
    return own + max(0, _most_resident(process.pid) - resident)


def _most_resident(pid: int) -> int:
    """Return the most bytes a process had in memory since its peak was forgotten; 0: unknown."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _give_back_free_memory() -> None:
    """Let the C library return what it keeps for later: it would hide what training takes."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _forget_peak(pid: int) -> None:
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
