"""One model in training: it takes steps, evaluates, and can go back to where it branched."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ScalingError
from ..records import content_hash
from .batches import GLOBAL_GENERATOR, Batch, move, n_samples
from .data import PreparedData
from .probe import ProbeResult
from .schedules import ScheduleName, lr_factor


class Diverged(ScalingError):
    """The training loss became NaN or infinite."""


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


Report = Callable[[CurvePiece], None]

FLUSH_SECONDS = 0.2
"""Losses stay on the device and are read at this pace: reading each would stop the device."""


def seed_of(trunk_id: str) -> int:
    """Return the 32-bit seed of initialisation and data order that a trunk's name decides."""
    return int(content_hash(trunk_id, length=8), 16)


@contextlib.contextmanager
def own_generator(recipe: Trainable, seed: int) -> Iterator[None]:
    """Train alone, with the global generator seeded, where a step draws from that generator.

    All threads share it, so runs with dropout take turns in one process; others are let through.
    """
    if not recipe.probed.draws_random:
        yield
        return
    with GLOBAL_GENERATOR, torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class Trainer:
    """One model's weights, optimizer and place in the data.

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
    """

    def __init__(
        self,
        recipe: Trainable,
        value: int | float,
        *,
        seed: int,
        lr: float | None,
        device: torch.device | None = None,
    ) -> None:
        self.recipe = recipe
        self.device = device or recipe.device
        self.seed = seed
        self.model = recipe.build_seeded(value, seed).to(self.device)
        self.optimizer = recipe.build_optimizer(self.model, lr)
        self.peak_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.step = 0
        self.tokens_seen = 0
        self._batches: Iterator[Batch] = recipe.data.source.batches(seed)
        self._pending: list[Tensor] = []
        self._pending_tokens: list[int] = []

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
        last_flush = time.perf_counter()
        try:
            while self.step < until:
                check()
                self._take_step(n_steps)
                if time.perf_counter() - last_flush > FLUSH_SECONDS:
                    self._flush(report)
                    last_flush = time.perf_counter()
        finally:
            self._flush(report)

    def _take_step(self, n_steps: int) -> None:
        recipe = self.recipe
        batch = next(self._batches)
        samples = n_samples(batch)
        factor = lr_factor(recipe.schedule, self.step, n_steps, recipe.warmup_steps)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * factor
        loss = recipe.loss(self.model, move(batch, self.device))
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, recipe.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens_seen += samples * recipe.data.tokens_per_sample
        self._pending.append(loss.detach().reshape(()))
        self._pending_tokens.append(self.tokens_seen)

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
        total, count = 0.0, 0
        losses, weights = [], []
        for batch in self.recipe.data.eval_batches:
            losses.append(self.recipe.loss(self.model, move(batch, self.device)).reshape(()))
            weights.append(n_samples(batch))
        for loss, weight in zip(torch.stack(losses).double().tolist(), weights, strict=True):
            total += loss * weight
            count += weight
        self.model.train()
        loss = total / count
        if not math.isfinite(loss):
            raise Diverged(f"the held-out loss is {loss}. Try half the learning rate.")
        return loss

    def snapshot(self) -> Snapshot:
        """Copy everything that decides the next step."""
        on_gpu = self.device.type == "cuda"
        return Snapshot(
            model=copy.deepcopy(self.model.state_dict()),
            optimizer=copy.deepcopy(self.optimizer.state_dict()),
            step=self.step,
            tokens_seen=self.tokens_seen,
            generator=torch.random.get_rng_state(),
            device_generator=torch.cuda.get_rng_state(self.device) if on_gpu else None,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot: the next step is bit for bit the one that followed it."""
        self.model.load_state_dict(snapshot.model)
        self.optimizer.load_state_dict(copy.deepcopy(dict(snapshot.optimizer)))
        self.step, self.tokens_seen = snapshot.step, snapshot.tokens_seen
        self._batches = self.recipe.data.source.batches(self.seed, start=self.step)
        if self.recipe.probed.draws_random:
            torch.random.set_rng_state(snapshot.generator)
        if snapshot.device_generator is not None:
            torch.cuda.set_rng_state(snapshot.device_generator, self.device)
