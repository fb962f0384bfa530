"""The one thread that touches widgets: workers and callbacks only leave word with it.

A sweep's workers, a click handled on the kernel's main thread and a background fit all run on
threads of their own, and widgets are not made for that. Everything a person sees is therefore
changed on this thread alone: at five beats a second while something streams, and at once when
somebody asked for something.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache

_log = logging.getLogger(__name__)
BEAT = 0.2
"""Seconds between two beats."""

Task = Callable[[], object]


class Ticker:
    """Runs tasks in order on one daemon thread, and its beats five times a second.

    Thread-safe. A task or beat that raises is logged; the thread goes on.
    """

    def __init__(self, beat: float = BEAT) -> None:
        self._beat = beat
        self._condition = threading.Condition()
        self._tasks: deque[Task] = deque()
        self._beats: tuple[Task, ...] = ()
        self._busy = False
        self._thread: threading.Thread | None = None

    def call(self, task: Task) -> None:
        """Run `task` on the ticker's thread as soon as it is free; returns at once."""
        with self._condition:
            self._tasks.append(task)
            self._wake()

    def every(self, beat: Task) -> Task:
        """Call `beat` five times a second from now on; returns a function that ends it."""
        with self._condition:
            self._beats = (*self._beats, beat)
            self._wake()

        def stop() -> None:
            with self._condition:
                self._beats = tuple(b for b in self._beats if b is not beat)

        return stop

    def settle(self, timeout: float = 10.0) -> bool:
        """Wait until every task so far has run; returns whether they have."""
        if threading.current_thread() is self._thread:
            return False
        with self._condition:
            return self._condition.wait_for(lambda: not self._tasks and not self._busy, timeout)

    def _wake(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._loop, name="panel", daemon=True)
            self._thread.start()
        self._condition.notify_all()

    def _loop(self) -> None:
        due = time.monotonic()
        while True:
            with self._condition:
                while not self._tasks and (not self._beats or time.monotonic() < due):
                    self._busy = False
                    self._condition.notify_all()
                    left = due - time.monotonic() if self._beats else None
                    self._condition.wait(left)
                self._busy = True
                todo = tuple(self._tasks)
                self._tasks.clear()
                beats = self._beats if time.monotonic() >= due else ()
            for task in (*todo, *beats):
                try:
                    task()
                except Exception:
                    _log.exception("the panel could not show something; the sweep goes on")
            if beats:
                # From the end of the last beat, so that slow beats never pile up.
                due = time.monotonic() + self._beat


@cache
def shared_ticker() -> Ticker:
    """Return the kernel's one ticker."""
    return Ticker()


class Latest:
    """Runs slow work off the ticker's thread; of several requests only the newest counts.

    Used for what takes longer than a beat: planning, measuring a step, a bootstrap.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._condition = threading.Condition()
        self._next: tuple[Task, float] | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, work: Task, *, after: float = 0.0) -> None:
        """Run `work` once the running one has ended and `after` seconds brought no other."""
        with self._condition:
            self._next = (work, time.monotonic() + after)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def close(self) -> None:
        """Forget what has not begun, wait a little for what has, and end the thread."""
        with self._condition:
            self._closed, self._next = True, None
            self._condition.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)

    def _loop(self) -> None:
        while True:
            with self._condition:
                while self._next is None or time.monotonic() < self._next[1]:
                    if self._closed:
                        return
                    self._condition.wait(self._next[1] - time.monotonic() if self._next else None)
                work, self._next = self._next[0], None
            try:
                work()
            except Exception:
                _log.exception("%s failed; the panel goes on", self._name)
