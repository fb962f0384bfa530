"""One run on several devices: each rank computes its slice of every batch, and sums are shared.

The gradient of a batch of n samples, of which rank r holds n_r, is Σ_r (n_r / n) ∇L_r: that of
one process up to the order of its sums. Weights stay equal on all ranks, as each starts from the
same seed and takes the same step, so nothing else is sent.
"""

from __future__ import annotations

import datetime
import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from ..errors import RecipeError, ScalingError
from .batches import Batch, n_samples
from .control import Control, Orders, Released, ReleasingControl
from .memory import split

T = TypeVar("T")
_PATIENCE = datetime.timedelta(days=30)
"""How long a rank waits for the others: they may have nothing to do. Whoever launched them sees
to those that died."""


_NO_ACCELERATE = (
    "a run on several devices needs Accelerate, which is not installed. "
    "pip install 'scaling_nb[distributed]'"
)


class WrongWorld(ScalingError):
    """The ranks that found each other are not as many as were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """One process's place among those that train a run together.

    Attributes
    ----------
    rank, world : int
    device : torch.device
    """

    rank: int
    world: int
    device: torch.device
    _accelerator: Any = field(repr=False)
    _talk: Any = field(repr=False)

    @classmethod
    def join(cls, world: int, *, cpu: bool) -> Self:
        """Meet the other ranks, under ``torchrun``; gloo on the CPU, NCCL on GPUs.

        Raises
        ------
        WrongWorld
            There are not `world` of them: some launchers silently start a single process.
        ScalingError
            Accelerate is not installed.
        """
        found = int(os.environ.get("WORLD_SIZE", "1"))
        if found != world:
            raise WrongWorld(_wrong_world(found, world))
        try:
            from accelerate import Accelerator
            from accelerate.utils import InitProcessGroupKwargs
        except ImportError as error:
            raise ScalingError(_NO_ACCELERATE) from error
        accelerator = Accelerator(
            cpu=cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)]
        )
        if accelerator.num_processes != world:
            raise WrongWorld(_wrong_world(accelerator.num_processes, world))
        return cls(
            rank=accelerator.process_index,
            world=world,
            device=accelerator.device,
            _accelerator=accelerator,
            _talk=torch.distributed.new_group(backend="gloo", timeout=_PATIENCE),
        )

    def part(self, batch: Batch) -> Batch:
        """Return this rank's slice of a global batch, samples in order.

        Raises
        ------
        RecipeError
            The batch cannot be divided evenly.
        """
        check_divisible(n_samples(batch), self.world)
        return split(batch, self.world)[self.rank]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all ranks, in one message for each dtype.

        A parameter without a gradient on every rank keeps none; one that only some ranks used
        counts as zero on the others.
        """
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_dtype.setdefault(parameter.dtype, []).append(parameter)
        for alike in by_dtype.values():
            used = torch.tensor([float(p.grad is not None) for p in alike], device=self.device)
            used = self.sum(used)
            sent = [p for p, count in zip(alike, used.tolist(), strict=True) if count]
            if not sent:
                continue
            pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in sent]
            total = self.sum(torch.cat([piece.reshape(-1) for piece in pieces]))
            for p, grad in zip(sent, torch.split(total, [p.numel() for p in sent]), strict=True):
                p.grad = grad.view_as(p).clone()

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over ranks, on every rank."""
        total: Tensor = self._accelerator.reduce(tensor, reduction="sum")
        return total

    def told(self, orders: Orders, source: Orders) -> Orders:
        """Return rank 0's `source` on every rank, or `orders` where that has not changed.

        Over the CPU: a GPU that is asked would have to stop.
        """
        news = torch.tensor([source is not orders], dtype=torch.int32)
        torch.distributed.broadcast(news, src=0, group=self._talk)
        if not news.item():
            return orders
        box = [source]
        torch.distributed.broadcast_object_list(box, src=0, group=self._talk)
        return box[0]

    def share(self, value: T) -> T:
        """Return rank 0's `value`, any picklable object, on every rank."""
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, group=self._talk)
        return box[0]

    def leave(self) -> None:
        """Part from the other ranks, once all are there: one that goes first breaks the rest."""
        torch.distributed.barrier(group=self._talk)
        torch.distributed.destroy_process_group(self._talk)
        self._accelerator.end_training()


def check_devices(devices: int, device: torch.device, batch_size: int) -> None:
    """Raise where `devices` cannot train one run together, before anything is launched."""
    check_divisible(batch_size, devices)
    if importlib.util.find_spec("accelerate") is None:
        raise RecipeError(f"devices={devices}: {_NO_ACCELERATE}")
    if device.type == "cuda" and torch.cuda.device_count() < devices:
        raise RecipeError(
            f"devices={devices} were asked for, but {torch.cuda.device_count()} CUDA devices are "
            'here. Ask for fewer, or give device="cpu".'
        )


def check_divisible(batch_size: int, world: int) -> None:
    """Raise `RecipeError` where a batch does not fall into `world` equal parts."""
    if batch_size % world:
        raise RecipeError(
            f"a batch of {batch_size} samples cannot be shared evenly by {world} devices. Make "
            f"batch_size a multiple of {world}, such as {-(-batch_size // world) * world}."
        )


def _wrong_world(found: int, world: int) -> str:
    return (
        f"{found} process{'es' * (found != 1)} joined where {world} were asked for. Launch with "
        f"torchrun --nproc-per-node {world}."
    )


class SharedControl(ReleasingControl):
    """Orders that all ranks take in before the same step. Not thread-safe: one for each rank.

    Parameters
    ----------
    ranks : Ranks
    source : Control
        Where orders arrive on rank 0; the other ranks' is not looked at.

    Attributes
    ----------
    broken : bool
        Set on a rank that has gone another way than the others, such as past a failed run: the
        job must end, and go on from its checkpoint with all of them.
    """

    def __init__(self, ranks: Ranks, source: Control) -> None:
        super().__init__()
        self._ranks, self._source = ranks, source
        self.broken = False

    def refresh(self) -> None:
        """Take in what rank 0 has been told; all ranks must call it alike."""
        if self.broken:
            raise Released("a run failed on one device: the others must follow")
        self.orders = self._ranks.told(self.orders, self._source.orders)

    def check(self, run_id: str = "") -> None:
        """Raise as :meth:`Control.check` does, and `Released` where the ranks have parted."""
        if self.broken:
            raise Released("a run failed on one device: the others must follow")
        super().check(run_id)
