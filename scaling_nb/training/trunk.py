"""One job of a sweep: the runs that share a training trunk, shortest first.

Under "wsd" a run of D tokens is a trunk at constant rate followed by a cooldown over its last
20%, and the trunk does not depend on D. So runs of one size and seed are trained as one trunk
that cools down in a branch for each budget and returns (Hägele et al. 2024). A job of a single
run is the same thing with one branch: the results are equal bit for bit, and so are those of a
job that was interrupted anywhere and went on from its checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from ..events import Event, RunFailed, RunFinished, RunStarted, StepLogged, StorageFailed
from ..records import RunSpec
from .checkpoint import Checkpoint, Saved
from .control import NO_ORDERS, Control, Released, RunSkipped, Stopped
from .distributed import Ranks
from .memory import is_out_of_memory
from .outcomes import OutOfMemory, failed, left_out, run_record
from .pace import CHECKPOINT_SECONDS
from .schedules import cooldown_start
from .trainer import CurvePiece, Snapshot, Trainable, Trainer, seed_of

Emit = Callable[[Event], None]

MOST_TIME_SAVING = 0.02
"""Share of the time that may go into checkpoints; a slow disk gets them less often."""


def train_trunk(
    recipe: Trainable,
    specs: Sequence[RunSpec],
    *,
    emit: Emit,
    control: Control | None = None,
    device: torch.device | None = None,
    checkpoint: Checkpoint | None = None,
    every: float = CHECKPOINT_SECONDS,
    micro_batches: int = 1,
    more_follow: bool = False,
    ranks: Ranks | None = None,
) -> None:
    """Train the runs of one trunk and emit what happens; an error in one run fails that run.

    Parameters
    ----------
    recipe : Recipe
    specs : sequence of RunSpec
        Equal in size, ``trunk_id`` and learning rate.
    emit : function of an Event
    control : Control, optional
        Obeyed before every step.
    device : torch.device, optional
        None: the recipe's.
    checkpoint : Checkpoint, optional
        Where the job is saved, and goes on from.
    every : float, seconds
        Between two checkpoints.
    micro_batches : int
        Pieces that each batch is computed in.
    more_follow : bool
        Whether a later job continues this trunk: its last checkpoint is then left.
    ranks : Ranks, optional
        The processes that train this job together; all of them call this.

    Raises
    ------
    Stopped
        After the unfinished runs were reported as cancelled.
    Released
        The job was saved, and nothing was reported of the runs that have not ended.
    OutOfMemory
        The job may be tried again; nothing was reported of the runs that have not ended.
    """
    job = _TrunkJob(recipe, specs, emit, control or Control(), checkpoint, every, more_follow)
    job.train(device, micro_batches, ranks)


class _TrunkJob:
    """The state of one job: a trainer, the runs to do, and their curves so far."""

    def __init__(
        self,
        recipe: Trainable,
        specs: Sequence[RunSpec],
        emit: Emit,
        control: Control,
        checkpoint: Checkpoint | None,
        every: float,
        more_follow: bool,
    ) -> None:
        self.recipe, self.control, self.checkpoint = recipe, control, checkpoint
        self.todo = sorted(specs, key=lambda s: s.n_tokens)
        self.every, self.more_follow = every, more_follow
        self._emit = emit
        self.sink_failed = False
        self.trainer: Trainer
        self.trunk_pieces: list[CurvePiece] = []
        self.branch_pieces: list[CurvePiece] = []
        self.trunk: Snapshot | None = None
        self.in_branch = ""
        self.began = self.saved_at = time.perf_counter()
        self.saving_took = 0.0

    def emit(self, event: Event) -> None:
        """Send an event, and remember whether that failed: then it is not the run's fault."""
        try:
            self._emit(event)
        except BaseException:
            self.sink_failed = True
            raise

    def train(
        self, device: torch.device | None, micro_batches: int, ranks: Ranks | None = None
    ) -> None:
        try:
            self._start(device, micro_batches, ranks)
            while self.todo:
                try:
                    self._next_run()
                except RunSkipped as reason:
                    self.emit(left_out(self.todo.pop(0), "skipped", reason))
                    self._return_to_trunk()
        except Released:
            raise
        except Stopped as reason:
            for spec in self.todo:
                self.emit(left_out(spec, "cancelled", reason))
            raise
        except Exception as error:
            if self.sink_failed:
                raise
            if is_out_of_memory(error):
                raise OutOfMemory(str(error)) from None
            # The rest of the trunk passes through the same steps, and would end the same way.
            for spec in self.todo:
                self.emit(failed(spec, error))
        if self.checkpoint is not None and not self.more_follow:
            self.checkpoint.delete()

    def _start(self, device: torch.device | None, micro_batches: int, ranks: Ranks | None) -> None:
        first = self.todo[0]
        self.trainer = Trainer(
            self.recipe,
            first.size,
            seed=seed_of(first.trunk_id),
            lr=first.lr,
            device=device,
            micro_batches=micro_batches,
            ranks=ranks,
        )
        for saved in self.checkpoint.candidates() if self.checkpoint else []:
            if self._go_on_from(saved):
                return

    def _go_on_from(self, saved: Saved) -> bool:
        """Go back to a checkpoint if the runs to do lie ahead of it; returns whether they do."""
        spec = self.todo[0]
        comes_back = len(self.todo) > 1 or self.more_follow
        if (
            saved.branch is not None
            and saved.branch_run == spec.run_id
            and not (comes_back and saved.trunk is None)
        ):
            self.trunk, self.in_branch = saved.trunk, saved.branch_run
            self.branch_pieces = [saved.branch_curve]
            self.trainer.restore(saved.branch)
        elif saved.trunk is not None and saved.trunk.step <= branch_step(spec):
            self.trainer.restore(saved.trunk)
        else:
            return False
        self.trunk_pieces = [saved.trunk_curve]
        self.began -= saved.seconds
        return True

    def _next_run(self) -> None:
        spec = self.todo[0]
        self.control.check(spec.run_id)
        self.emit(RunStarted(spec=spec, where=str(self.trainer.device)))
        for pieces in (self.trunk_pieces, self.branch_pieces):
            if pieces:
                self._log(spec, CurvePiece.joined(pieces))
        if not self.in_branch:
            self._train(self.trunk_pieces, until=branch_step(spec))
            comes_back = len(self.todo) > 1 or self.more_follow
            self.trunk = self.trainer.snapshot() if comes_back else None
            self.in_branch = spec.run_id
            if len(self.todo) == 1 and self.more_follow:
                self._save()
        self.emit(self._branch(spec))
        self.todo.pop(0)
        self._return_to_trunk()
        self.began = time.perf_counter()

    def _branch(self, spec: RunSpec) -> RunFinished | RunFailed:
        """Cool down and evaluate; what goes wrong here is this run's alone, the trunk is sound."""
        try:
            self._train(self.branch_pieces, until=spec.n_steps)
            loss = self.trainer.evaluate()
        except (Stopped, Released, RunSkipped):
            raise
        except Exception as error:
            if self.sink_failed or is_out_of_memory(error):
                raise
            return failed(spec, error)
        return RunFinished(
            run=run_record(
                spec,
                "finished",
                loss=loss,
                tokens_seen=self.trainer.tokens_seen,
                seconds=time.perf_counter() - self.began,
                message=self.trainer.divided,
            )
        )

    def _return_to_trunk(self) -> None:
        if self.in_branch and self.trunk is not None and self.todo:
            self.trainer.restore(self.trunk)
        self.trunk, self.in_branch, self.branch_pieces = None, "", []

    def _train(self, pieces: list[CurvePiece], *, until: int) -> None:
        spec = self.todo[0]

        def report(piece: CurvePiece) -> None:
            pieces.append(piece)
            self._log(spec, piece)

        self.trainer.train(until, spec.n_steps, report=report, check=self._obey)

    def _obey(self) -> None:
        """Save now and then, and do what a person asks; runs before every step."""
        self.control.refresh()
        if self.control.orders is not NO_ORDERS:
            self.trainer.step_out()
            run_id = self.todo[0].run_id
            if self.control.orders.paused and not self.control.orders.cancelled:
                self._save()
                paused_at = time.perf_counter()
                self.control.hold(run_id)
                self.began += time.perf_counter() - paused_at
            elif self.control.orders.cancelled:
                self._save()
            self.control.check(run_id)
        waited = time.perf_counter() - self.saved_at
        if waited > self.every and waited * MOST_TIME_SAVING > self.saving_took:
            self._save()

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        began = time.perf_counter()
        self.trainer.flush()
        now = self.trainer.snapshot(copied=False)
        try:
            self.checkpoint.save(
                Saved(
                    trunk=self.trunk if self.in_branch else now,
                    trunk_curve=CurvePiece.joined(self.trunk_pieces),
                    branch_run=self.in_branch,
                    branch=now if self.in_branch else None,
                    branch_curve=CurvePiece.joined(self.branch_pieces),
                    seconds=began - self.began,
                )
            )
        except OSError as error:
            self.emit(StorageFailed(message=f"no checkpoint can be written: {error}"))
        self.saved_at = time.perf_counter()
        self.saving_took = self.saved_at - began

    def _log(self, spec: RunSpec, piece: CurvePiece) -> None:
        self.emit(StepLogged(run_id=spec.run_id, tokens=piece.tokens, loss=piece.loss))


def branch_step(spec: RunSpec) -> int:
    """Return the step at which a run leaves its trunk."""
    return cooldown_start(spec.n_steps) if spec.schedule == "wsd" else spec.n_steps
