"""A real Ray cluster on this machine: every node is a raylet at an address of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

HEAD = "127.0.0.2"
MEMORY = "--object-store-memory=100000000"


class Cluster:
    """A head without CPUs, and nodes with one CPU each.

    Attributes
    ----------
    address : str
    """

    def __init__(self, folder: Path, n_nodes: int) -> None:
        with socket.socket() as free:
            free.bind((HEAD, 0))
            port = free.getsockname()[1]
        self.address = f"{HEAD}:{port}"
        self._folder = folder
        self._start(
            "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false",
            f"--temp-dir={folder}", ip=HEAD,
        )  # fmt: skip
        for k in range(n_nodes):
            self.add(f"127.0.0.{3 + k}")

    def add(self, ip: str) -> None:
        self._start(f"--address={self.address}", "--num-cpus=1", ip=ip)

    def _start(self, *arguments: str, ip: str) -> None:
        command = [str(Path(sys.executable).with_name("ray")), "start", *arguments]
        done = subprocess.run(
            [*command, f"--node-ip-address={ip}", MEMORY, "--disable-usage-stats"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def kill(self, ip: str) -> None:
        """Lose a node at once, as when its power fails."""
        for process in processes():
            words = " ".join(_command(process))
            mine = self.address in words
            if mine and "raylet" in words and f"--node_ip_address={ip} " in f"{words} ":
                _kill(process)

    def kill_head(self) -> None:
        """Lose the head at once, and with it the cluster's memory of itself."""
        self.kill(HEAD)
        for process in processes():
            words = " ".join(_command(process))
            if "gcs_server" in words and str(self._folder) in words:
                _kill(process)

    def stop(self) -> None:
        """Kill this cluster's processes, and no other's: `ray stop` ends all of the machine's."""
        for process in processes():
            words = " ".join(_command(process))
            if self.address in words or str(self._folder) in words:
                _kill(process)


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        # The raylet first: it would tell of its workers' end, as no machine without power does.
        for lost in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                lost.send_signal(signal.SIGKILL)


def processes() -> list[psutil.Process]:
    return list(psutil.process_iter())


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextlib.contextmanager
def cluster(n_nodes: int = 2) -> Iterator[Cluster]:
    """Start a cluster, and stop it in the end."""
    # The paths of Ray's sockets must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    made = Cluster(folder, n_nodes)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def driven(made: Cluster) -> Iterator[None]:
    """Connect this process, as a driver on the head node."""
    import ray

    ray.shutdown()
    ray.init(
        address=made.address, namespace="scaling_nb", _node_ip_address=HEAD, log_to_driver=False
    )
    try:
        yield
    finally:
        ray.shutdown()
