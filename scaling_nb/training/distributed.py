"""One run on several devices: each rank computes its slice of every batch, and sums are shared.

The gradient of a batch of n samples, of which rank r holds n_r, is Σ_r (n_r / n) ∇L_r: that of
one process up to the order of its sums. Weights stay equal on all ranks, as each starts from the
same seed and takes the same step, so nothing else is sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..errors import RecipeError, ScalingError
from .batches import Batch, n_samples
from .memory import split


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
        except ImportError as error:
            raise ScalingError(
                "a run on several devices needs Accelerate, which is not installed. "
                "pip install 'scaling_nb[distributed]'"
            ) from error
        accelerator = Accelerator(cpu=cpu)
        if accelerator.num_processes != world:
            raise WrongWorld(_wrong_world(accelerator.num_processes, world))
        return cls(
            rank=accelerator.process_index,
            world=world,
            device=accelerator.device,
            _accelerator=accelerator,
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

    def leave(self) -> None:
        """Part from the other ranks."""
        self._accelerator.end_training()


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
