"""Persistent worker processes: started ahead of need, reused by every sweep, replaced if they die.

They are started fresh (never forked: fork after torch has run hangs), and without importing the
person's main script, so that scripts need no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import ProcessError
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from types import MappingProxyType

from ..errors import SweepError
from ..training.control import Orders
from ..training.devices import cpu_count
from .messages import Message, Reply

START_SECONDS = 120

WORKER_BYTES = 280 * 2**20
"""Memory of its own that a worker has in training, besides the run's (250 to 320 MiB measured)."""

_WORKER = "import sys; from scaling_nb.executors.worker import main; main(sys.argv[1])"


class WorkerProcess:
    """One worker process and the pipe to it. One thread talks to it; any may send orders.

    Parameters
    ----------
    command : sequence of str
        Arguments of the interpreter, if not those of a worker; the pipe's address comes after.
    environment : mapping of str to str, optional
        Besides this process's own.
    """

    def __init__(
        self,
        command: Sequence[str] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._sending = threading.Lock()
        key = secrets.token_bytes(32)
        self._listener = Listener(None, authkey=key)
        own = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _path()}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the worker
        self.process = subprocess.Popen(
            [sys.executable, *(command or ("-c", _WORKER)), str(self._listener.address)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**own, **environment},
            # Ctrl-C in a terminal goes to the whole group; the driver decides what to do with it.
            start_new_session=True,
        )
        assert self.process.stdin is not None
        # One that has died already takes no key; `connect` says what it printed.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(key.hex().encode() + b"\n")
            self.process.stdin.close()
        self._connection: Connection | None = None

    def connect(self) -> None:
        """Wait until the worker is ready.

        Raises
        ------
        SweepError
            It did not start; says what it printed.
        """
        if self._connection is not None:
            return
        done = threading.Event()
        threading.Thread(target=self._unblock, args=(done,), daemon=True).start()
        try:
            self._connection = self._listener.accept()
            if self.receive() != "ready":
                raise EOFError
        except (OSError, EOFError, ProcessError) as error:
            raise SweepError(
                f"a worker process did not start: {self.last_words() or error}. "
                'Use executor="threads".'
            ) from error
        finally:
            done.set()
            self._listener.close()

    def _unblock(self, done: threading.Event) -> None:
        """Wake a wait for a worker that died before it connected."""
        waited = 0.0
        while not done.wait(0.2):
            waited += 0.2
            if self.process.poll() is not None or waited > START_SECONDS:
                self.process.kill()
                self._knock()
                return

    def _knock(self) -> None:
        import socket

        address = self._listener.address
        if isinstance(address, str) and hasattr(socket, "AF_UNIX"):
            with socket.socket(socket.AF_UNIX) as knock:
                knock.connect(address)

    @property
    def connected(self) -> bool:
        """Whether it has been ready."""
        return self._connection is not None

    @property
    def alive(self) -> bool:
        """Whether the process lives."""
        return self.process.poll() is None

    def send(self, message: Message) -> None:
        """Send a task or orders; raises `OSError` if the worker is gone."""
        assert self._connection is not None
        with self._sending:
            self._connection.send(message)

    def receive(self) -> Reply:
        """Wait for the next reply; raises `EOFError` or `OSError` if the worker is gone."""
        assert self._connection is not None
        reply: Reply = self._connection.recv()
        return reply

    def last_words(self) -> str:
        """Return how the worker ended, and the last line it printed."""
        if self._log.closed:
            return "it was stopped"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        try:
            code = f"exit status {self.process.wait(timeout=5)}"
        except subprocess.TimeoutExpired:
            code = ""
        return ", ".join(part for part in (code, *lines[-1:]) if part)

    def stop(self) -> None:
        """End the process now."""
        self.process.kill()
        self.process.wait()
        if self._connection is not None:
            self._connection.close()
        self._listener.close()
        self._log.close()


def forward(worker: WorkerProcess, orders: Orders) -> None:
    """Send orders to a worker; one that has ended needs none."""
    with contextlib.suppress(OSError):
        worker.send(orders)


def _path() -> str:
    """Return this process's import path, so that a worker finds what the person could import."""
    return os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)


class WorkerPool:
    """Idle workers of this process. Thread-safe."""

    def __init__(self) -> None:
        self._idle: list[WorkerProcess] = []
        self._all: list[WorkerProcess] = []
        self._lock = threading.Lock()

    def warm(self, n: int) -> None:
        """Start workers until `n` are idle; returns at once, they import torch meanwhile."""
        with self._lock:
            while len(self._idle) < n:
                self._idle.append(self._new())

    def _new(self) -> WorkerProcess:
        if not self._all:
            atexit.register(self.close)
        worker = WorkerProcess()
        self._all = [other for other in self._all if other.alive] + [worker]
        return worker

    def borrow(self) -> WorkerProcess:
        """Return a worker that is ready; the caller gives it back."""
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else self._new()
            if worker.alive or not worker.connected:
                worker.connect()
                return worker
            worker.stop()

    def settle(self) -> None:
        """Wait until every worker that was warmed is ready: until then they take the cores."""
        with self._lock:
            waiting = [worker for worker in self._idle if not worker.connected]
            self._idle = [worker for worker in self._idle if worker.connected]
        for worker in waiting:
            worker.connect()
            self.give_back(worker)

    def pids(self) -> list[int]:
        """Return the process ids of all living workers."""
        with self._lock:
            return [worker.process.pid for worker in self._all if worker.alive]

    def give_back(self, worker: WorkerProcess) -> None:
        """Keep a worker for later if it is alive and has nothing to do."""
        if worker.alive:
            with self._lock:
                self._idle.append(worker)

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            workers, self._all, self._idle = self._all, [], []
        for worker in workers:
            worker.stop()
        atexit.unregister(self.close)


POOL = WorkerPool()


def warm_workers(n: int | None = None) -> None:
    """Start worker processes ahead of need, such as while a plan is made; returns at once.

    Importing torch takes seconds: a sweep with ``executor="processes"`` then starts at once.

    Parameters
    ----------
    n : int, optional
        None: one per core.
    """
    POOL.warm(n or cpu_count())
