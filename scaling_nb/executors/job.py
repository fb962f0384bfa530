"""Training one job, on one device in this thread or on several in processes of their own."""

from __future__ import annotations

import torch

from ..training.control import Control
from ..training.pace import CHECKPOINT_SECONDS
from ..training.recipe import Recipe
from ..training.trunk import train_trunk
from .base import Checkpointing, Emit, Job
from .ranks import train_on_ranks


def train_job(
    recipe: Recipe,
    job: Job,
    *,
    emit: Emit,
    control: Control,
    checkpointing: Checkpointing | None,
    device: torch.device | None = None,
) -> None:
    """Train one job as it asks to be; raises as :func:`train_trunk` does."""
    if recipe.devices > 1:
        train_on_ranks(
            recipe,
            job,
            emit=emit,
            control=control,
            checkpointing=checkpointing,
            device=device or recipe.device,
        )
        return
    train_trunk(
        recipe,
        job.specs,
        emit=emit,
        control=control,
        device=device,
        checkpoint=checkpointing.of(job) if checkpointing else None,
        every=checkpointing.every if checkpointing else CHECKPOINT_SECONDS,
        micro_batches=job.micro_batches,
        more_follow=job.more_follow,
    )
