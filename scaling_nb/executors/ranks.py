"""One job on several devices: a group of processes under ``torchrun`` that trains it together.

Any executor may train so: its worker launches the group, passes on what rank 0 reports, and
starts it again where the ranks have parted, as after a run that failed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from ..events import Event
from ..training.control import Control, Stopped
from ..training.outcomes import left_out
from ..training.recipe import Recipe
from .base import Checkpointing, Emit, Ended, Job, WorkerDied
from .messages import Outcome, Task
from .payload import write_recipe
from .pool import WorkerProcess, forward

GRACE_SECONDS = 15


class RankGroup(WorkerProcess):
    """The processes of one ``torchrun``; the pipe leads to rank 0.

    Parameters
    ----------
    n : int
    device : torch.device
        The first of `n`.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
        rank = ["-m", "scaling_nb.executors.rank", str(n), device.type]
        super().__init__([*launcher, *rank], visible_devices(device, n))

    def stop(self) -> None:
        """End all ranks: the launcher does so when it is asked to end."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=GRACE_SECONDS)
        super().stop()


def train_on_ranks(
    recipe: Recipe,
    job: Job,
    *,
    emit: Emit,
    control: Control,
    checkpointing: Checkpointing | None,
    device: torch.device,
) -> None:
    """Train one job on ``recipe.devices`` devices from `device` on; they are free while paused.

    Raises
    ------
    Stopped, Released, OutOfMemory
        As :func:`train_trunk`.
    WorkerDied
        A rank ended.
    """
    folder = Path(tempfile.mkdtemp(prefix="scaling_nb-"))
    ended = Ended(emit)
    try:
        write_recipe(recipe, folder)
        while (rest := job.without(ended.run_ids)).specs:
            _hold(control, rest, emit)
            task = Task(
                recipe=folder,
                job=rest,
                device=device.type,
                checkpointing=checkpointing,
                orders=control.orders,
            )
            _train_once(RankGroup(recipe.devices, device), task, ended, control)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hold(control: Control, job: Job, emit: Emit) -> None:
    """Wait while paused, without devices; a job that is cancelled meanwhile says so."""
    try:
        control.hold()
    except Stopped as reason:
        for spec in job.specs:
            emit(left_out(spec, "cancelled", reason))
        raise


def _train_once(group: RankGroup, task: Task, emit: Emit, control: Control) -> None:
    stop_listening = None
    try:
        group.connect()
        group.send(task)
        stop_listening = control.listen(lambda orders: forward(group, orders))
        while not isinstance(reply := group.receive(), Outcome):
            if isinstance(reply, Event):
                emit(reply)
    except EOFError:
        raise WorkerDied(
            f"a process of a run on several devices ended ({group.last_words()}); most often its "
            "memory ran out"
        ) from None
    finally:
        if stop_listening is not None:
            stop_listening()
        group.stop()
    if reply.kind == "stopped":
        raise Stopped("stopped by the user")
    if reply.error is not None:
        raise reply.error


def visible_devices(device: torch.device, n: int) -> dict[str, str]:
    """Return the environment in which a group sees `n` GPUs from `device` on, and no other."""
    if device.type != "cuda":
        return {}
    first = device.index or 0
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = seen.split(",") if seen else [str(i) for i in range(torch.cuda.device_count())]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[first : first + n])}
