"""How a run ended: what is raised, and the record that is stored."""

from __future__ import annotations

import math
import traceback

from ..errors import DataError, ScalingError
from ..events import RunFailed
from ..records import Run, RunSpec, Status


class Diverged(ScalingError):
    """The training loss became NaN or infinite."""


class OutOfMemory(ScalingError):
    """A run needed more memory than there is; its job may be tried again, smaller or alone."""


def run_record(
    spec: RunSpec,
    status: Status,
    *,
    loss: float = math.nan,
    tokens_seen: float = math.nan,
    seconds: float = math.nan,
    message: str = "",
) -> Run:
    """Return the record of a run; what it did not reach is NaN."""
    return Run(
        run_id=spec.run_id,
        N=spec.n_params,
        D=tokens_seen,
        C=tokens_seen * spec.flops_per_token,
        loss=loss,
        budget=spec.budget,
        seed=spec.seed,
        size=spec.size,
        status=status,
        group=spec.trunk_id,
        n_total=spec.counts.total,
        n_non_embedding=spec.counts.non_embedding,
        n_matmul=spec.counts.matmul,
        unique_tokens=math.nan if spec.unique_tokens is None else spec.unique_tokens,
        lr=math.nan if spec.lr is None else spec.lr,
        schedule=spec.schedule,
        seconds=seconds,
        message=message,
    )


def failed(spec: RunSpec, error: BaseException) -> RunFailed:
    """Return the event of a run that an error ended: diverged, or failed with its traceback."""
    if isinstance(error, Diverged):
        return RunFailed(run=run_record(spec, "diverged", message=str(error)))
    named = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
    return RunFailed(
        run=run_record(spec, "failed", message=named),
        traceback="".join(traceback.format_exception(error)),
    )


def left_out(spec: RunSpec, status: Status, reason: object) -> RunFailed:
    """Return the event of a run that somebody stopped or skipped."""
    return RunFailed(run=run_record(spec, status, message=str(reason)))
