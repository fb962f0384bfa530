"""One model in training: it takes steps, evaluates, and can go back to where it branched."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import DataError, RecipeError
from ..records import content_hash
from .batches import Batch, move, n_samples
from .counting import describe_tensor
from .data import PreparedData
from .devices import on_device
from .distributed import Ranks
from .generators import OwnGenerators
from .memory import split
from .outcomes import Diverged
from .pace import FLUSH_SECONDS
from .probe import ProbeResult
from .schedules import ScheduleName, lr_factor


class Trainable(Protocol):
    """What a trainer asks of a recipe."""

    @property
    def data(self) -> PreparedData: ...
    @property
    def probed(self) -> ProbeResult: ...
    @property
    def schedule(self) -> ScheduleName: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def grad_clip(self) -> float | None: ...
    @property
    def device(self) -> torch.device: ...
    def build_seeded(self, value: int | float, seed: int) -> nn.Module: ...
    def build_optimizer(self, model: nn.Module, lr: float | None) -> torch.optim.Optimizer: ...
    def loss(self, model: nn.Module, batch: Batch) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that decides a trainer's next step, copied."""

    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    step: int
    tokens_seen: int
    generator: Tensor
    device_generator: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePiece:
    """Consecutive points of a training curve: tokens seen after each step, and its loss."""

    tokens: NDArray[np.int64]
    loss: NDArray[np.float32] = field(repr=False)

    @classmethod
    def joined(cls, pieces: Sequence[CurvePiece]) -> Self:
        """Return consecutive pieces as one; none give an empty one."""
        return cls(
            tokens=np.concatenate([np.zeros(0, np.int64), *(p.tokens for p in pieces)]),
            loss=np.concatenate([np.zeros(0, np.float32), *(p.loss for p in pieces)]),
        )


Report = Callable[[CurvePiece], None]


def _ignore(piece: CurvePiece) -> None:
    """Report to nobody."""


def seed_of(trunk_id: str) -> int:
    """Return the 32-bit seed of initialisation and data order that a trunk's name decides."""
    return int(content_hash(trunk_id, length=8), 16)


class Trainer:
    """One model's weights, optimizer, place in the data and, where steps draw, generators.

    Not thread-safe: one thread trains one trainer. The same (recipe, size, seed, lr) gives the
    same losses bit for bit, on any number of workers.

    Parameters
    ----------
    recipe : Trainable
    value : int or float
        Size of the model.
    seed : int
        Decides initialisation and data order.
    lr : float or None
        Peak learning rate; None where the user's optimizer function decides.
    device : torch.device, optional
        None: the recipe's.
    micro_batches : int
        Pieces that each batch is computed in, where a whole one does not fit in memory.
    ranks : Ranks, optional
        The processes that train this run together; each takes its slice of every batch.
    """

    def __init__(
        self,
        recipe: Trainable,
        value: int | float,
        *,
        seed: int,
        lr: float | None,
        device: torch.device | None = None,
        micro_batches: int = 1,
        ranks: Ranks | None = None,
    ) -> None:
        self.recipe = recipe
        self.device = device or recipe.device
        self.micro_batches = micro_batches
        self.ranks = ranks
        self.seed = seed
        self.model = recipe.build_seeded(value, seed).to(self.device)
        self.optimizer = recipe.build_optimizer(self.model, lr)
        self.peak_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        # For steps that draw, as dropout does; all threads share the generators, by turns.
        self.own = OwnGenerators(seed, self.device) if recipe.probed.draws_random else None
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.step = 0
        self.tokens_seen = 0
        self._batches: Iterator[Batch] = recipe.data.source.batches(seed)
        self._pending: list[Tensor] = []
        self._pending_tokens: list[int] = []
        self._report: Report = _ignore

    def train(
        self,
        until: int,
        n_steps: int,
        *,
        report: Report,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Take steps until step `until` of a run that is `n_steps` long.

        Parameters
        ----------
        report : function of a `CurvePiece`
            Called about five times a second, and at the end.
        check : function
            Called before every step; whatever it raises ends training between two steps.

        Raises
        ------
        Diverged
            When a loss is NaN or infinite.
        """
        self.model.train()
        self._report = report
        with on_device(self.device):
            self._train(until, n_steps, check)

    def _train(self, until: int, n_steps: int, check: Callable[[], None]) -> None:
        last_flush = time.perf_counter()
        try:
            while self.step < until:
                check()
                if self.own is not None:
                    self.own.enter()
                self._take_step(n_steps)
                if self.own is not None:
                    self.own.let_others()
                if time.perf_counter() - last_flush > FLUSH_SECONDS:
                    self.flush()
                    last_flush = time.perf_counter()
        finally:
            self.step_out()
            try:
                self.flush()
            finally:
                # It holds the job, and the job this trainer: in a circle, weights would stay on
                # the device until Python looks for garbage, beside those of the next job.
                self._report = _ignore

    def step_out(self) -> None:
        """Let others draw random numbers: nothing is trained for a while."""
        if self.own is not None:
            self.own.leave()

    def _take_step(self, n_steps: int) -> None:
        recipe = self.recipe
        batch = self._next_batch()
        samples = n_samples(batch)
        factor = lr_factor(recipe.schedule, self.step, n_steps, recipe.warmup_steps)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * factor
        loss = self._backward(batch, samples)
        if recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, recipe.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens_seen += samples * recipe.data.tokens_per_sample
        self._pending.append(loss)
        self._pending_tokens.append(self.tokens_seen)

    def _next_batch(self) -> Batch:
        try:
            return next(self._batches)
        except StopIteration:
            raise DataError(
                f"the data ended after step {self.step}, and could not be started again. Give a "
                "data set that can be read more than once, or a smaller compute budget."
            ) from None

    def _backward(self, batch: Batch, samples: int) -> Tensor:
        """Compute the gradient of the batch's mean loss, and return that loss, shape ()."""
        if self.ranks is not None:
            loss = self._backward_pieces(self.ranks.part(batch), samples)
            self.ranks.sum_gradients(self.parameters)
            return self.ranks.sum(loss)
        return self._backward_pieces(batch, samples)

    def _backward_pieces(self, batch: Batch, samples: int) -> Tensor:
        if self.micro_batches == 1:
            return self._backward_part(move(batch, self.device), n_samples(batch) / samples)
        losses = [
            self._backward_part(move(part, self.device), n_samples(part) / samples)
            for part in split(batch, self.micro_batches)
        ]
        return torch.stack(losses).sum()

    def _backward_part(self, batch: Batch, weight: float) -> Tensor:
        loss = self.recipe.loss(self.model, batch)
        if loss.numel() != 1:
            raise RecipeError(
                f"the loss of step {self.step + 1} is {describe_tensor(loss)}, not one number. "
                "Reduce it to the batch's mean on every path through the loss."
            )
        if weight != 1.0:
            loss = loss * weight
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach().reshape(())

    @property
    def divided(self) -> str:
        """How a batch is divided, in words; empty where it is computed whole."""
        world = 1 if self.ranks is None else self.ranks.world
        parts = [
            f"trained on {world} devices together" * (world > 1),
            f"each batch computed in {self.micro_batches} pieces, for memory"
            * (self.micro_batches > 1),
        ]
        return "; ".join(part for part in parts if part)

    def flush(self) -> None:
        """Report the losses of all steps taken; raise `Diverged` where one is not finite."""
        self._flush(self._report)

    def _flush(self, report: Report) -> None:
        if not self._pending:
            return
        losses = torch.stack(self._pending).float().cpu().numpy()
        piece = CurvePiece(tokens=np.array(self._pending_tokens), loss=losses)
        self._pending, self._pending_tokens = [], []
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            first = bad[0]
            report(CurvePiece(tokens=piece.tokens[:first], loss=losses[:first]))
            step = self.step - len(losses) + int(first) + 1
            raise Diverged(
                f"the training loss became {losses[first]} at step {step}. "
                "Try half the learning rate, or a longer warm-up."
            )
        report(piece)

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the held-out loss, nats per token: the mean over the fixed held-out batches."""
        self.model.eval()
        total, count = 0.0, 0.0
        losses, weights = [], []
        source = self.recipe.data.source
        rows = source.tokens_per_step / self.recipe.data.tokens_per_sample / self.micro_batches
        whole_batches = self.recipe.data.eval_batches
        if self.ranks is not None:
            whole_batches = whole_batches[self.ranks.rank :: self.ranks.world]
        for whole in whole_batches:
            pieces = math.ceil(n_samples(whole) / rows) if self.micro_batches > 1 else 1
            for batch in split(whole, pieces):
                inside = self.own.inside() if self.own else contextlib.nullcontext()
                with inside, on_device(self.device):
                    loss = self.recipe.loss(self.model, move(batch, self.device))
                losses.append(loss.reshape(()))
                weights.append(n_samples(batch))
        found = torch.stack(losses).double().tolist() if losses else []
        for value, weight in zip(found, weights, strict=True):
            total += value * weight
            count += weight
        if self.ranks is not None:
            sums = torch.tensor([total, count], dtype=torch.float64, device=self.device)
            total, count = self.ranks.sum(sums).tolist()
        self.model.train()
        mean = total / count
        if not math.isfinite(mean):
            raise Diverged(f"the held-out loss is {mean}. Try half the learning rate.")
        return mean

    def snapshot(self, *, copied: bool = True) -> Snapshot:
        """Return everything that decides the next step; a copy, or what the next step changes."""
        host, device = self.own.saved() if self.own else (torch.zeros(0), None)
        model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        return Snapshot(
            model=copy.deepcopy(model) if copied else model,
            optimizer=copy.deepcopy(optimizer) if copied else optimizer,
            step=self.step,
            tokens_seen=self.tokens_seen,
            generator=host,
            device_generator=device,
        )

    @property
    def snapshot_bytes(self) -> int:
        """Bytes that a copied snapshot takes on the device: weights and the optimizer's state."""
        state = [value for kept in self.optimizer.state.values() for value in kept.values()]
        tensors = [*self.model.state_dict().values(), *state]
        return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot: the next step is bit for bit the one that followed it."""
        self.model.load_state_dict(snapshot.model)
        self.optimizer.load_state_dict(copy.deepcopy(dict(snapshot.optimizer)))
        self.step, self.tokens_seen = snapshot.step, snapshot.tokens_seen
        self._batches = self.recipe.data.source.batches(self.seed, start=self.step)
        if self.own is not None:
            self.own.restore(snapshot.generator, snapshot.device_generator)
