"""Where a run trains."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path

import psutil
import torch

from ..errors import RecipeError


def choose_device(device: torch.device | str | None) -> torch.device:
    """Return the device asked for, or all CUDA devices (``cuda``), or the CPU.

    Raises
    ------
    RecipeError
        The device's name is unknown, or there is no such device.
    """
    if device is None:
        return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise RecipeError(
            f'device {device!r} is unknown ({error}). Give "cpu", "cuda" or "cuda:0".'
        ) from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise RecipeError(
            f"device {device!r} was asked for, but {torch.cuda.device_count()} CUDA devices are "
            'here. Give device="cpu", or None to take what there is.'
        )
    return chosen


def worker_devices(device: torch.device, per_run: int = 1) -> list[torch.device]:
    """Return the device of each worker: every GPU, or the named one; the CPU once per core.

    Parameters
    ----------
    device : torch.device
    per_run : int
        Devices that train one run together: a worker has that many from the one named on.
    """
    if device.type == "cpu":
        return [device] * max(1, cpu_count() // per_run)
    if str(device) == "cuda":
        last = max(1, torch.cuda.device_count() - per_run + 1)
        return [torch.device("cuda", i) for i in range(0, last, per_run)]
    return [device]


def cpu_count() -> int:
    """Return the number of cores this process may use (affinity and cgroup quota)."""
    cores = len(psutil.Process().cpu_affinity() or ()) if psutil.LINUX else os.cpu_count()
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        if quota != "max":
            return max(1, min(cores or 1, int(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return max(1, cores or 1)


def free_memory(device: torch.device) -> int:
    """Return the bytes a sweep may still take on a device; on the CPU, cgroup limits count."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    for folder, limit, used, cache in _CGROUP_FILES:
        try:
            top, now = (int((folder / name).read_text()) for name in (limit, used))
            # Pages of files that were read, which the kernel gives back when they are wanted.
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            free = min(free, top - now + int(stat.get(cache, 0)))
        except (OSError, ValueError):
            continue
    return max(0, free)


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU this thread's current one: pinned memory, and code that says "cuda", use that."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


class DeviceMemory:
    """The most that training takes on GPUs beyond what was taken before.

    Parameters
    ----------
    devices : sequence of torch.device
        GPUs, each once.
    in_process : bool
        Whether this process trains: then its allocator knows the most there was. What other
        processes take is read from the device, whoever takes it, so a short peak may be missed.
    """

    def __init__(self, devices: Sequence[torch.device], *, in_process: bool = True) -> None:
        # The counters of a device that was never used cannot be reset.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        self._devices, self._in_process = list(devices), in_process
        for device in self._devices if in_process else ():
            torch.cuda.reset_peak_memory_stats(device)
        self._before = [self._now(device) for device in self._devices]

    def _now(self, device: torch.device) -> int:
        if self._in_process:
            return torch.cuda.max_memory_allocated(device)
        free, total = torch.cuda.mem_get_info(device)
        return int(total - free)

    def taken(self, *, but: Sequence[int] | None = None) -> list[int]:
        """Return the bytes of each device, less what `but` says of each."""
        less = [0] * len(self._devices) if but is None else but
        return [
            max(0, self._now(device) - before - rest)
            for device, before, rest in zip(self._devices, self._before, less, strict=True)
        ]

    def kept(self) -> list[int]:
        """Return the bytes of each device that are taken now, though all training here has ended.

        Libraries keep room to work in: cuBLAS 32 MiB for each thread that multiplies.
        """
        return [
            torch.cuda.memory_allocated(device) - before
            for device, before in zip(self._devices, self._before, strict=True)
        ]


CONTEXT_BYTES = 750 * 2**20
"""What a process has on a GPU besides its tensors, the driver's context and loaded kernels: 718 MiB
on an H200 with CUDA 13 (``benchmarks/gpu.py``)."""


@lru_cache
def power_limit(device: torch.device) -> float | None:
    """Return the most power a GPU may draw, watts, as its driver tells; None where it does not."""
    ask = ["nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, ValueError, AttributeError, subprocess.SubprocessError):
        # By its own name: a process may see other numbers than the driver's.
        name = f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}"
        said = subprocess.run([*ask, name], capture_output=True, check=True, timeout=10, text=True)
        return float(said.stdout)
    return None


_CGROUP_FILES = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


@contextlib.contextmanager
def use_one_thread() -> Iterator[None]:
    """Let torch use one core in this thread; the pool of OpenMP threads is left as it was.

    One worker a core beats one worker with all cores at the sizes a CPU sweep trains, and a sum
    in one thread has one order: the losses do not depend on the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
