"""One job of a sweep: the runs that share a training trunk, shortest first.

Under "wsd" a run of D tokens is a trunk at constant rate followed by a cooldown over its last
20%, and the trunk does not depend on D. So runs of one size and seed are trained as one trunk
that cools down in a branch for each budget and returns (Hägele et al. 2024). A job of a single
run is the same thing with one branch: the results are equal bit for bit.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..errors import ScalingError
from ..events import Event, RunFailed, RunFinished, RunStarted, StepLogged
from ..records import Run, RunSpec, Status
from .schedules import cooldown_start
from .trainer import CurvePiece, Diverged, Trainable, Trainer, own_generator, seed_of

Emit = Callable[[Event], None]


class _Told:
    """Sends events, and remembers whether that failed: then it is not the run's fault."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.failed = False

    def __call__(self, event: Event) -> None:
        try:
            self._emit(event)
        except BaseException:
            self.failed = True
            raise


class Stopped(ScalingError):
    """The sweep was cancelled: the run ended between two steps."""


def train_trunk(
    recipe: Trainable,
    specs: Sequence[RunSpec],
    *,
    emit: Emit,
    check: Callable[[], None],
    device: torch.device | None = None,
) -> None:
    """Train the runs of one trunk and emit what happens; an error in one run fails that run.

    Parameters
    ----------
    recipe : Recipe
    specs : sequence of RunSpec
        Equal in size, ``trunk_id`` and learning rate.
    emit : function of an Event
    check : function
        Called before every step; raises `Stopped` to end the job.
    device : torch.device, optional
        None: the recipe's.

    Raises
    ------
    Stopped
        As `check` raised it, after the unfinished runs were reported as cancelled.
    """
    specs = sorted(specs, key=lambda s: s.n_tokens)
    todo = list(specs)
    told = _Told(emit)
    with own_generator(recipe, seed_of(specs[0].trunk_id)):
        pieces: list[CurvePiece] = []
        try:
            trainer = Trainer(
                recipe,
                specs[0].size,
                seed=seed_of(specs[0].trunk_id),
                lr=specs[0].lr,
                device=device,
            )
            while todo:
                began = time.perf_counter()
                told(RunStarted(spec=todo[0]))
                _follow_trunk(trainer, todo[0], pieces, emit=told, check=check)
                branch = trainer.snapshot() if len(todo) > 1 else None
                told(_branch(trainer, todo[0], began, emit=told, check=check))
                todo.pop(0)
                if branch is not None:
                    trainer.restore(branch)
        except Stopped:
            for spec in todo:
                told(RunFailed(run=_unfinished(spec, "cancelled", "stopped by the user")))
            raise
        except Exception as error:
            if told.failed:
                raise
            # The rest of the trunk passes through the same steps, and would end the same way.
            for spec in todo:
                told(_failed(spec, error))


def _follow_trunk(
    trainer: Trainer,
    spec: RunSpec,
    pieces: list[CurvePiece],
    *,
    emit: Emit,
    check: Callable[[], None],
) -> None:
    """Train the trunk up to where this run branches; its curve so far is the run's too."""
    if pieces:
        emit(_logged(spec, _joined(pieces)))

    def report(piece: CurvePiece) -> None:
        pieces.append(piece)
        emit(_logged(spec, piece))

    trainer.train(_branch_step(spec), spec.n_steps, report=report, check=check)


def _branch(
    trainer: Trainer, spec: RunSpec, began: float, *, emit: _Told, check: Callable[[], None]
) -> RunFinished | RunFailed:
    """Cool down and evaluate; what goes wrong here is this run's alone, the trunk is sound."""
    try:
        trainer.train(
            spec.n_steps,
            spec.n_steps,
            report=lambda piece: emit(_logged(spec, piece)),
            check=check,
        )
        loss = trainer.evaluate()
    except Stopped:
        raise
    except Exception as error:
        if emit.failed:
            raise
        return _failed(spec, error)
    seconds = time.perf_counter() - began
    return RunFinished(run=_run_of(spec, trainer.tokens_seen, "finished", loss, seconds=seconds))


def _failed(spec: RunSpec, error: Exception) -> RunFailed:
    if isinstance(error, Diverged):
        return RunFailed(run=_unfinished(spec, "diverged", str(error)))
    run = _unfinished(spec, "failed", f"{type(error).__name__}: {error}")
    return RunFailed(run=run, traceback="".join(traceback.format_exception(error)))


def _branch_step(spec: RunSpec) -> int:
    return cooldown_start(spec.n_steps) if spec.schedule == "wsd" else spec.n_steps


def _logged(spec: RunSpec, piece: CurvePiece) -> StepLogged:
    return StepLogged(run_id=spec.run_id, tokens=piece.tokens, loss=piece.loss)


def _joined(pieces: Sequence[CurvePiece]) -> CurvePiece:
    return CurvePiece(
        tokens=np.concatenate([p.tokens for p in pieces]),
        loss=np.concatenate([p.loss for p in pieces]),
    )


def _unfinished(spec: RunSpec, status: Status, message: str) -> Run:
    return _run_of(spec, math.nan, status, math.nan, message=message)


def _run_of(
    spec: RunSpec,
    tokens_seen: float,
    status: Status,
    loss: float,
    *,
    seconds: float = math.nan,
    message: str = "",
) -> Run:
    nan = math.nan
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
        unique_tokens=nan if spec.unique_tokens is None else spec.unique_tokens,
        lr=nan if spec.lr is None else spec.lr,
        schedule=spec.schedule,
        seconds=seconds,
        message=message,
    )
