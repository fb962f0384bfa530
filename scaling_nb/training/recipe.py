"""The recipe: what is trained, and how. Validated by a probe before anything is launched."""

from __future__ import annotations

import contextlib
import copy
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..cost import StepCost
from ..errors import RecipeError, RunsError, cause
from ..grid import SIZE_LADDER
from ..records import TOKENS, checked_unit, content_hash
from .arguments import checked_sizes, whole_number
from .batches import Batch, n_samples
from .callables import check_callables
from .counting import FlopChoice, ModelSize, count_flops
from .data import PreparedData, prepare_data
from .devices import choose_device, worker_devices
from .distributed import check_devices
from .fingerprint import describe
from .generators import seeded_globals
from .lr_range import RangeTest, interpolate_rates, range_test
from .optimizers import OptimizerChoice, build_optimizer, check_optimizer
from .precision import Precision, check_precision, multiplying_in
from .probe import (
    LossFn,
    ProbeResult,
    StepFn,
    is_cross_entropy,
    loss_of_batch,
    probe,
    warn_of_negative,
)
from .schedules import ScheduleName, check_schedule, cooldown_start
from .timing import measure_step

MOST_PROBED = 20_000_000
"""Parameters of the largest model that planning takes one step of, to see whether it draws."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """What is trained, and how: model, data, loss, optimizer, schedule.

    Making one runs a *probe*: the smallest model is built and one batch goes through model and
    loss, so that a wrong shape, dtype, loss or argument is reported before anything is launched.

    Parameters
    ----------
    build_model : class, function, functools.partial or lambda
        Called as ``build_model(**{size: value}, **model_kwargs)``; returns an ``nn.Module``. A
        ``num_params()`` method, if there is one, decides N; else parameters are counted.
    size : str
        Name of the argument that sets the model's size, such as ``"d_model"``.
    sizes : sequence of int or float, optional
        Candidate values. None: 1, 2, 3, 4, 6, 8, 12, … are probed; invalid ones are skipped.
    model_kwargs : mapping, optional
        The model's other arguments.
    dataset : 1-D array of token ids, Dataset, IterableDataset or DataLoader
        Yields ``(inputs, targets)``, or whatever `step_fn` takes. Token ids mean next-token
        prediction over windows of `tokens_per_sample`. Streams and loaders keep their order.
    eval_dataset : same, optional
        Held-out data. None: a deterministic split (see ``scaling_nb.training.data``).
    loss_fn : callable (outputs, targets) -> scalar tensor, optional
        None: cross-entropy.
    step_fn : callable (model, batch) -> scalar tensor, optional
        Replaces `loss_fn`, for dict batches and models that return their own loss.
    batch_size : int, samples
    tokens_per_sample : int, tokens, optional
        Inferred: the sequence length for integer sequences, else 1 (D then counts samples). For
        token ids it is the context length: by default the model's ``context`` (``block_size``,
        ``seq_len``, …) argument, else 128.
    unit : str, optional
        What D counts in words, such as "images" or "patches". Inferred: "tokens", or "samples"
        where a sample is no sequence.
    optimizer : None, dict or callable model -> Optimizer
        None and dict: fused AdamW, betas (.9, .95), weight decay .1 on matrices. ``lr`` is a
        float, a function of N, or ``"auto"`` (the default): a short range test.
    schedule : {"wsd", "cosine", "constant"}
        Each fits the run's own length; "wsd" cools down over the last 20% by 1 − √x.
    warmup_steps : int, steps
    grad_clip : float or None
        Bound on the gradient's global norm.
    precision : {"fp32", "bf16"}
        "bf16": the model computes under torch's autocast, matrix products in bfloat16; weights,
        optimizer and loss stay in float32. Several times as fast on a GPU that has it; on most
        CPUs slower.
    flops : {"counted", "6ND"} or callable (model, batch) -> FLOP per token
    eval_tokens : int, tokens
        Most that one evaluation reads.
    device : str or torch.device, optional
        None: the first CUDA device if there is one, else the CPU.
    devices : int
        Devices that train each run together, data-parallel: each takes its share of every batch
        of `batch_size`, which they must divide. Losses equal those of one device up to the order
        of sums, so runs and plans are the same whatever their number. Needs the extra
        ``distributed``.

    Raises
    ------
    RecipeError
        (a ValueError) with what is wrong and what would be right. `DataError` for the data.
    """

    build_model: Callable[..., nn.Module] = field(kw_only=False)
    size: str
    sizes: Sequence[int | float] | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    dataset: Any = field(repr=False)
    eval_dataset: Any = field(default=None, repr=False)
    loss_fn: LossFn | None = None
    step_fn: StepFn | None = None
    batch_size: int = 32
    tokens_per_sample: int | None = None
    optimizer: OptimizerChoice = None
    schedule: ScheduleName = "wsd"
    warmup_steps: int = 40
    grad_clip: float | None = 1.0
    precision: Precision = "fp32"
    flops: FlopChoice = "counted"
    eval_tokens: int = 2**16
    device: torch.device = None  # type: ignore[assignment]
    devices: int = 1
    name: str = ""
    unit: str = ""

    data: PreparedData = field(init=False, repr=False)
    probed: ProbeResult = field(init=False, repr=False)
    smallest: int | float = field(init=False, repr=False)
    _sizes_seen: dict[int | float, ModelSize | RecipeError] = field(
        init=False, repr=False, default_factory=dict
    )
    range_tests: dict[int | float, RangeTest] = field(init=False, repr=False, default_factory=dict)
    _probed: set[int | float] = field(init=False, repr=False, default_factory=set)
    _parts: dict[str, Any] = field(init=False, repr=False)
    _losses: dict[torch.device, nn.Module] = field(init=False, repr=False, default_factory=dict)
    _told: set[str] = field(init=False, repr=False, default_factory=set)
    _lock: Any = field(init=False, repr=False, default_factory=threading.RLock)

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not isinstance(self.model_kwargs or {}, Mapping):
            raise RecipeError(
                f"model_kwargs is a {type(self.model_kwargs).__name__}. Give a dict of arguments."
            )
        put(self, "model_kwargs", dict(self.model_kwargs or {}))
        self._check_arguments()
        check_callables(self.build_model, self.size, self.model_kwargs, self.loss_fn, self.step_fn)
        self.model_kwargs.pop(self.size, None)  # type: ignore[attr-defined]
        put(self, "optimizer", check_optimizer(self.optimizer))
        check_schedule(self.schedule)
        check_precision(self.precision)
        put(self, "device", choose_device(self.device))
        put(
            self,
            "data",
            prepare_data(
                self.dataset,
                eval_dataset=self.eval_dataset,
                batch_size=self.batch_size,
                tokens_per_sample=self.tokens_per_sample,
                eval_tokens=self.eval_tokens,
                model_kwargs=self.model_kwargs,
            ),
        )
        # Before anything runs: a stateful step_fn would describe differently afterwards.
        put(self, "_parts", self._described())
        if self.devices > 1:
            check_devices(self.devices, self.device, n_samples(self.sample_batch()))
        smallest, probed = self._probe_smallest()
        put(self, "smallest", smallest)
        put(self, "probed", probed)
        warn_of_negative(probed.loss)
        if not self.name:
            put(self, "name", getattr(self.build_model, "__name__", "model"))
        if not self.unit:
            sequences = self.data.is_tokens or self.data.tokens_per_sample > 1
            put(self, "unit", TOKENS if sequences else "samples")

    def __getstate__(self) -> dict[str, Any]:
        # A lock cannot travel to a worker process; each has its own.
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def _check_arguments(self) -> None:
        put = object.__setattr__
        whole = (("batch_size", 1), ("eval_tokens", 1), ("warmup_steps", 0), ("devices", 1))
        for name, least in whole:
            put(self, name, whole_number(name, getattr(self, name), least))
        if self.tokens_per_sample is not None:
            put(
                self,
                "tokens_per_sample",
                whole_number("tokens_per_sample", self.tokens_per_sample, 1),
            )
        clip = self.grad_clip
        if clip is not None and not (isinstance(clip, int | float) and 0 < clip < math.inf):
            raise RecipeError(f"grad_clip is {clip!r}. Give a positive bound, or None for none.")
        if not isinstance(self.size, str) or not self.size:
            raise RecipeError(
                f"size is {self.size!r}. Give the *name* of the argument that sets the model's "
                'size, such as "d_model"; its values go into sizes=.'
            )
        if self.unit != "":
            try:
                put(self, "unit", checked_unit(self.unit))
            except RunsError as error:
                raise RecipeError(str(error)) from None
        put(self, "sizes", None if self.sizes is None else checked_sizes(self.sizes))
        if self.flops not in ("counted", "6ND") and not callable(self.flops):
            raise RecipeError(
                f'flops is {self.flops!r}. Choose "counted", "6ND", or a function '
                "(model, batch) -> FLOP per token."
            )

    def _probe_smallest(self) -> tuple[int | float, ProbeResult]:
        first_error: RecipeError | None = None
        for value in sorted(self.sizes) if self.sizes is not None else SIZE_LADDER[:14]:
            try:
                return value, self._probe(value)
            except RecipeError as error:
                # Later sizes are tried only where this one could not be *built*.
                if not isinstance(error.__cause__, Exception) or "build_model" not in str(error):
                    raise
                if isinstance(error.__cause__, TypeError):
                    raise
                first_error = first_error or error
                self._sizes_seen[value] = RecipeError(cause(error.__cause__))
        assert first_error is not None
        raise first_error

    def _probe(self, value: int | float) -> ProbeResult:
        asks_pairs: Literal["", "tensor", "any"] = ""
        if self.step_fn is None:
            classes = self.loss_fn is None or is_cross_entropy(self.loss_fn)
            asks_pairs = "tensor" if classes else "any"
        return probe(
            lambda: self.build(value),
            lambda: self.data.source.batches(seed=0),
            self.data.eval_batches[0],
            self.loss,
            lambda model: self.build_optimizer(model, None),
            size=self.size,
            asks_pairs=asks_pairs,
        )

    def _probe_largest(self, values: Sequence[int | float]) -> None:
        """See whether a large model draws random numbers where the smallest does not."""
        largest = max(values, key=self._n_total)
        known = self.probed.draws_random or largest in self._probed
        if known or self._n_total(largest) > MOST_PROBED:
            return
        self._probed.add(largest)
        # A size that fails here fails as a run too, and says so there.
        with contextlib.suppress(RecipeError):
            if self._probe(largest).draws_random:
                object.__setattr__(self, "probed", replace(self.probed, draws_random=True))

    def build(self, value: int | float) -> nn.Module:
        """Build the model of one size, in whatever state the global generator is."""
        return self.build_model(**{self.size: value}, **self.model_kwargs)

    def build_seeded(self, value: int | float, seed: int) -> nn.Module:
        """Build the model of one size on the CPU, initialised by `seed` alone."""
        with seeded_globals(seed):
            return self.build(value)

    def build_optimizer(self, model: nn.Module, lr: float | None) -> torch.optim.Optimizer:
        """Make the optimizer of one model at its peak learning rate."""
        return build_optimizer(self.optimizer, model, lr)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss of one batch, shape (); of tokens, nats per token."""
        return loss_of_batch(
            model,
            batch,
            self._loss_beside(model),
            self.step_fn,
            within=multiplying_in(self.precision, model),
        )

    def _loss_beside(self, model: nn.Module) -> LossFn | None:
        """Return the loss on the model's device: class weights, say, must be where it is."""
        if not isinstance(self.loss_fn, nn.Module) or not self.loss_fn.state_dict():
            return self.loss_fn
        device = next(model.parameters()).device
        with self._lock:
            if device not in self._losses:
                self._losses[device] = copy.deepcopy(self.loss_fn).to(device)
            return self._losses[device]

    def sample_batch(self) -> Batch:
        """Return one training batch, on the CPU."""
        return next(iter(self.data.source.batches(seed=0)))

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one optimiser step."""
        return self.data.source.tokens_per_step

    @property
    def unique_tokens(self) -> int | None:
        """Training tokens before anything repeats; None for a stream without end."""
        return self.data.source.unique_tokens

    def inspect_size(self, value: int | float) -> ModelSize:
        """Count one size on the meta device, or raise `RecipeError` with why it is invalid."""
        with self._lock:
            if value not in self._sizes_seen:
                self._sizes_seen[value] = self._inspect(value)
            seen = self._sizes_seen[value]
        if isinstance(seen, RecipeError):
            raise seen
        return seen

    def _inspect(self, value: int | float) -> ModelSize | RecipeError:
        try:
            with seeded_globals(0):
                counts, per_token, unknown = count_flops(
                    lambda: self.build(value),
                    self.sample_batch(),
                    self.tokens_per_step,
                    self.loss,
                    self.flops,
                    told=self._told,
                )
        except RecipeError as error:
            return error
        except Exception as error:
            return RecipeError(cause(error))
        return ModelSize(value=value, counts=counts, flops_per_token=per_token, uncounted=unknown)

    def learning_rates(self, values: Sequence[int | float]) -> dict[int | float, float | None]:
        """Return the peak rate of each size; None where the user's optimizer function decides.

        With ``lr="auto"`` the smallest and the largest of `values` are range-tested first, which
        trains about a thousand steps of each; the tests are kept in :attr:`range_tests`.
        """
        self._probe_largest(values)
        lr = self.optimizer["lr"] if isinstance(self.optimizer, Mapping) else None
        n_params = [self.inspect_size(value).counts.total for value in values]
        if lr == "auto":
            rates: list[float | None] = [*interpolate_rates(self._tested(values), n_params)]
        elif callable(lr):
            rates = [self._checked_rate(lr, n) for n in n_params]
        else:
            rates = [None if lr is None else float(lr)] * len(n_params)
        return dict(zip(values, rates, strict=True))

    def _tested(self, values: Sequence[int | float]) -> list[RangeTest]:
        ends = sorted({min(values, key=self._n_total), max(values, key=self._n_total)})
        for value in ends:
            if value not in self.range_tests:
                self.range_tests[value] = range_test(self, value, self._n_total(value))
        return sorted((self.range_tests[v] for v in ends), key=lambda test: test.n_params)

    def _n_total(self, value: int | float) -> int:
        return self.inspect_size(value).counts.total

    @staticmethod
    def _checked_rate(lr: Callable[[int], float], n_params: int) -> float:
        rate = float(lr(n_params))
        if not 0 < rate < float("inf"):
            raise RecipeError(f"lr({n_params}) returned {rate}. Return a positive rate.")
        return rate

    def measure_step(
        self, value: int | float, *, lr: float | None = None, workers: int = 1, beside: int = 0
    ) -> StepCost:
        """Time a few real steps of one size; see ``scaling_nb.training.timing``."""
        return measure_step(self, value, lr=lr, workers=workers, beside=beside)

    def can_branch(self, n_steps: int) -> bool:
        """Whether a run of `n_steps` can be a branch of a longer run's trunk."""
        return self.schedule == "wsd" and cooldown_start(n_steps) >= self.warmup_steps

    @property
    def default_workers(self) -> int:
        """Runs that train at once: one per GPU, or one per core; fewer where a run has several."""
        return len(worker_devices(self.device, self.devices))

    @property
    def recipe_id(self) -> str:
        """Content hash of everything that changes a run's result."""
        return content_hash(self.parts())

    def parts(self) -> dict[str, Any]:
        """Return what :attr:`recipe_id` is the hash of, by name, JSON-ready."""
        return dict(self._parts)

    def _described(self) -> dict[str, Any]:
        # What is not named is as it was before there was a choice: runs keep their names.
        chosen = {} if self.precision == "fp32" else {"precision": self.precision}
        return {
            **chosen,
            "build_model": describe(self.build_model),
            "size": self.size,
            "model_kwargs": describe(self.model_kwargs),
            "data": self.data.fingerprint,
            "loss_fn": describe(self.loss_fn),
            "step_fn": describe(self.step_fn),
            "batch_size": self.batch_size,
            "tokens_per_sample": self.data.tokens_per_sample,
            "optimizer": describe(self.optimizer),
            "schedule": self.schedule,
            "warmup_steps": self.warmup_steps,
            "grad_clip": self.grad_clip,
            "eval_tokens": self.data.eval_tokens,
        }
