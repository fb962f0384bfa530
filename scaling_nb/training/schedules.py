"""Learning-rate schedules as pure functions of the step: each fits the run's own length."""

from __future__ import annotations

import math
from typing import Literal, get_args

from ..cost import COOLDOWN
from ..errors import RecipeError

ScheduleName = Literal["wsd", "cosine", "constant"]
SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)

COSINE_FLOOR = 0.1
"""Where "cosine" ends, as a share of the peak; Hoffmann et al. 2022, §3."""


def check_schedule(name: str) -> ScheduleName:
    """Return `name` if it is a schedule; raise `RecipeError` otherwise."""
    if name not in SCHEDULES:
        raise RecipeError(
            f"schedule {name!r} is unknown. Choose one of {', '.join(map(repr, SCHEDULES))}."
        )
    return name


def cooldown_start(n_steps: int) -> int:
    """Return the first step of the cooldown of a "wsd" run of `n_steps` steps."""
    return n_steps - round(COOLDOWN * n_steps)


def lr_factor(name: ScheduleName, step: int, n_steps: int, warmup_steps: int) -> float:
    """Return the learning rate of a step as a share of the peak rate.

    ``wsd``: linear warm-up, constant, then 1 − √x over the last 20% (x from 0 to 1).
    ``cosine``: linear warm-up, then half a cosine down to 10%. ``constant``: warm-up only.
    A warm-up never reaches into the cooldown, so a short run still peaks.

    Parameters
    ----------
    step : int
        0-based.
    n_steps : int
        Length of this run.
    warmup_steps : int

    References
    ----------
    Hägele et al. 2024 (cooldown shape 1 − √x); Hoffmann et al. 2022 (cosine to 10%).
    """
    start = cooldown_start(n_steps)
    warmup = min(warmup_steps, start)
    if step < warmup:
        return (step + 1) / warmup
    if name == "wsd" and step >= start:
        return 1.0 - math.sqrt((step - start + 1) / (n_steps - start + 1))
    if name == "cosine":
        x = (step - warmup + 1) / max(1, n_steps - warmup)
        return COSINE_FLOOR + (1 - COSINE_FLOOR) * (1 + math.cos(math.pi * x)) / 2
    return 1.0
