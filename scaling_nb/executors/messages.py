"""What a driver and its worker processes say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..events import Event
from ..training.control import Orders
from .base import Checkpointing, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a driver asks: train this job of the recipe in that folder.

    Attributes
    ----------
    recipe : Path
    job : Job
    device : str
    checkpointing : Checkpointing or None
    orders : Orders
        Those in force as the task is given.
    """

    recipe: Path
    job: Job
    device: str
    checkpointing: Checkpointing | None
    orders: Orders


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a task ended; ``error`` is for "error" and "memory".

    After "released" the job is saved and goes on from there, in another place or later.
    """

    kind: Literal["done", "stopped", "released", "memory", "error"]
    error: BaseException | None = None


Message = Task | Orders | None
Reply = Event | Outcome | Literal["ready"]
