"""A notebook run as on Binder: one core, one thread, and killed beyond 2 GB."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

HARD_LIMIT = 2e9
INTERVAL = 0.1


@dataclass
class Watch:
    """Memory of a process and everything it started, sampled while it lives.

    Shared pages are counted once (proportional set size), as a container's limit counts them.
    """

    pid: int
    limit: float = HARD_LIMIT
    peak: float = 0.0
    killed: bool = False
    over: threading.Event = field(default_factory=threading.Event)

    def sample(self) -> float:
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total

    def tree(self) -> list[psutil.Process]:
        try:
            top = psutil.Process(self.pid)
            return [top, *top.children(recursive=True)]
        except psutil.Error:
            return []

    def run(self) -> None:
        while not self.over.wait(INTERVAL):
            self.peak = max(self.peak, self.sample())
            if self.peak > self.limit:
                self.killed = True
                for process in self.tree():
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                return


@contextlib.contextmanager
def watching(pid: int, limit: float = HARD_LIMIT) -> Iterator[Watch]:
    """Sample a process tree in a thread of its own."""
    watch = Watch(pid, limit)
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.over.set()
        thread.join()


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep what is started inside to one core: a child has its parent's affinity.

    Where processes share the tests, each has a core of its own.
    """
    before = os.sched_getaffinity(0)
    place = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(before)[place % len(before)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Used:
    """What a notebook took."""

    seconds: float
    peak: float
    notebook: Any


def execute(notebook: Any, folder: Path, *, limit: float = HARD_LIMIT, timeout: int = 280) -> Used:
    """Run a notebook in a kernel of its own, on one core; killed beyond `limit` bytes."""
    client = NotebookClient(
        notebook, timeout=timeout, resources={"metadata": {"path": str(folder)}},
        kernel_name="python3",
    )  # fmt: skip
    began = time.monotonic()
    with one_core(), client.setup_kernel():
        pid = client.km.provisioner.process.pid
        with watching(pid, limit) as watch:
            try:
                for number, cell in enumerate(notebook.cells):
                    client.execute_cell(cell, number)
            except DeadKernelError:
                if watch.killed:
                    raise MemoryError(
                        f"the notebook's processes took {watch.peak / 1e6:.0f} MB"
                    ) from None
                raise
    return Used(time.monotonic() - began, watch.peak, notebook)


def read(path: Path) -> Any:
    """Return a notebook from its file."""
    return nbformat.read(path, as_version=4)
