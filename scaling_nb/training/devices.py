"""Where a run trains."""

from __future__ import annotations

import os

import torch

from ..errors import RecipeError


def choose_device(device: torch.device | str | None) -> torch.device:
    """Return the device asked for, or the first CUDA device, or the CPU.

    Raises
    ------
    RecipeError
        The device's name is unknown, or there is no such device.
    """
    if device is None:
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
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


def cpu_count() -> int:
    """Return the number of cores this process may use (affinity and cgroup quota)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        if quota != "max":
            return max(1, min(cores or 1, int(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return max(1, cores or 1)
