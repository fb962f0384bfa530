"""One rank of a group: ``torchrun … -m scaling_nb.executors.rank WORLD DEVICE ADDRESS``.

Rank 0 takes tasks over the pipe, shares them with the others, and reports. All ranks go the same
way, step by step; one that must leave it ends the job, which goes on from its checkpoint.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import torch

from ..events import Event, RunFailed
from ..training.checkpoint import Checkpoint, Saved
from ..training.control import Control, Released, Stopped
from ..training.distributed import Ranks, SharedControl
from ..training.outcomes import OutOfMemory
from ..training.pace import CHECKPOINT_SECONDS
from ..training.trunk import train_trunk
from .messages import Outcome, Task
from .payload import read_recipe
from .worker import Worker, connect, sendable, serve

_NO_TASK: Task | None = None
SECONDS_TO_SPEAK = 5.0
"""How long another rank's error waits: rank 0, if it has met the same, says it better."""


class ReadCheckpoint(Checkpoint):
    """What ranks other than 0 go on from; rank 0 writes."""

    def save(self, saved: Saved) -> None:
        """Leave it to rank 0."""

    def delete(self) -> None:
        """Leave it to rank 0."""


class RankWorker(Worker):
    """Rank 0's side of the pipe: what it trains, all ranks train."""

    def __init__(self, address: str, world: int) -> None:
        super().__init__(connect(address))
        self._world = world
        self._ranks: Ranks | None = None

    def train(self, task: Task) -> Outcome:
        """Meet the other ranks, if that has not happened yet, and train a task with them."""
        try:
            self._ranks = self._ranks or Ranks.join(self._world, cpu=task.device == "cpu")
            self._ranks.share(task)
        except Exception as error:
            return Outcome(kind="error", error=sendable(error))
        return train_together(self._ranks, task, self.control, self.send)


def train_together(
    ranks: Ranks, task: Task, orders: Control, send: Callable[[Event], object]
) -> Outcome:
    """Train one task as one of its ranks; only rank 0 reports."""
    control = SharedControl(ranks, orders)

    def emit(event: Event) -> None:
        run = event.run if isinstance(event, RunFailed) else None
        went_wrong = run is not None and run.status in ("failed", "diverged")
        if ranks.rank == 0:
            send(event)
        elif run is not None and went_wrong:
            _leave_the_word_to_rank_0(run.message)
        control.broken = control.broken or went_wrong

    place = task.checkpointing
    kind = Checkpoint if ranks.rank == 0 else ReadCheckpoint
    try:
        train_trunk(
            read_recipe(task.recipe),
            task.job.specs,
            emit=emit,
            control=control,
            device=ranks.device,
            checkpoint=place.of(task.job, kind) if place else None,
            every=place.every if place else CHECKPOINT_SECONDS,
            micro_batches=task.job.micro_batches,
            more_follow=task.job.more_follow,
            ranks=ranks,
        )
    except Stopped:
        return Outcome(kind="stopped")
    except Released:
        return Outcome(kind="released")
    except OutOfMemory as error:
        if ranks.rank:
            _leave_the_word_to_rank_0(str(error))
        return Outcome(kind="memory", error=error)
    except Exception as error:
        if ranks.rank:
            _leave_the_word_to_rank_0(str(error))
        return Outcome(kind="error", error=sendable(error))
    return Outcome(kind="done")


def _leave_the_word_to_rank_0(message: str) -> NoReturn:
    """End this rank, and with it the group; rank 0, if it has met the same, says it first."""
    time.sleep(SECONDS_TO_SPEAK)
    print(message, file=sys.stderr, flush=True)  # noqa: T201  the launcher's log
    os._exit(1)


def main(world: int, device: str, address: str) -> None:
    """Rank 0 serves the pipe; the others train what it shares."""
    if os.environ["RANK"] == "0":
        serve(RankWorker(address, world))
    torch.set_num_threads(1)
    ranks = Ranks.join(world, cpu=device == "cpu")
    while task := ranks.share(_NO_TASK):
        train_together(ranks, task, Control(), lambda event: None)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
