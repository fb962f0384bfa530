"""The contract probe: one batch through the smallest model before anything is launched."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import RecipeError, ScalingWarning, cause
from .batches import Batch, n_samples
from .counting import count_params, describe_tensor
from .generators import host_generators, seeded_globals
from .samples import read

LossFn = Callable[[Any, Any], Tensor]
StepFn = Callable[[nn.Module, Batch], Tensor]
LossOf = Callable[[nn.Module, Batch], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What one training step of the smallest model showed.

    Attributes
    ----------
    draws_random : bool
        Whether the step draws from torch's global generator (dropout, say). All threads share
        that generator, so such runs cannot run side by side in one process and stay repeatable.
    loss : float, nats per token
        Of the untrained model.
    """

    draws_random: bool
    loss: float


def warn_of_negative(loss: float) -> None:
    """Warn of a loss that a power law cannot describe; it may still rise above zero."""
    if loss <= 0:
        warnings.warn(
            f"the untrained model's loss is {loss:.3g}, but a power law describes positive losses "
            "that fall: runs that end at zero or below are left out of every fit. Give a loss "
            "that is positive, such as a cross-entropy or a squared error.",
            ScalingWarning,
            stacklevel=4,
        )


def loss_of_batch(
    model: nn.Module,
    batch: Batch,
    loss_fn: LossFn | None,
    step_fn: StepFn | None,
    *,
    within: AbstractContextManager[object],
) -> Tensor:
    """Return the mean loss of one batch: ``step_fn(model, batch)``, or loss_fn(model(x), y).

    The model computes `within` a precision, but no loss is rounded to it: laws are fitted to
    differences that bfloat16 does not have.
    """
    if step_fn is not None:
        with within:
            loss = step_fn(model, batch)
        if isinstance(loss, Tensor) and loss.dtype in (torch.bfloat16, torch.float16):
            raise RecipeError(
                f"step_fn returned a loss in {str(loss.dtype).removeprefix('torch.')}, which "
                "rounds it by up to 0.4 %. Compute it from outputs.float()."
            )
        return loss
    inputs, targets = batch
    with within:
        outputs = model(inputs)
    if isinstance(outputs, Tensor) and outputs.dtype == torch.bfloat16:
        outputs = outputs.float()
    if loss_fn is None or is_cross_entropy(loss_fn):
        outputs, targets = _as_classes(outputs, targets)
        loss_fn = loss_fn or nn.functional.cross_entropy
    return loss_fn(outputs, targets)


def is_cross_entropy(loss_fn: object) -> bool:
    """Whether the loss compares class scores with class numbers."""
    functions = (nn.functional.cross_entropy, nn.functional.nll_loss)
    return isinstance(loss_fn, nn.CrossEntropyLoss | nn.NLLLoss) or loss_fn in functions


def _as_classes(outputs: Any, targets: Any) -> tuple[Any, Any]:
    """Put (batch, T, classes) with (batch, T) into the two axes that cross-entropy expects."""
    if (
        isinstance(outputs, Tensor)
        and isinstance(targets, Tensor)
        and outputs.ndim == 3
        and targets.shape == outputs.shape[:2]
        and not targets.is_floating_point()
    ):
        return outputs.flatten(0, 1), targets.flatten()
    return outputs, targets


def probe(
    build: Callable[[], nn.Module],
    batches: Callable[[], Iterator[Batch]],
    eval_batch: Batch,
    loss_of: LossOf,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    *,
    size: str,
    asks_pairs: Literal["", "tensor", "any"],
) -> ProbeResult:
    """Build one model, take one training step and one held-out batch, and judge all of it.

    Parameters
    ----------
    build : function that returns the model
    batches : function that returns training batches from the first
    eval_batch : batch
    loss_of : function (model, batch) -> loss
    make_optimizer : function of the model
    size : str
        Name of the size argument, for messages.
    asks_pairs : {"", "tensor", "any"}
        Whether batches must be (inputs, targets), and the model's output a tensor.

    Raises
    ------
    RecipeError
        With the step that failed, the shapes and dtypes involved, and the remedy.
    """
    with seeded_globals(0):
        model = _build(build, size)
        _refuse_lazy(model)
        count_params(model)
        before = host_generators()
        # Two batches: what a data set draws may come after the first.
        batch, *_ = read(batches(), name="dataset", n=2)
        if asks_pairs:
            _check_pair(batch)
            _check_outputs(_forward(model, batch[0]), asks_pairs)
        loss = _loss(loss_of, model, batch, asks_pairs)
        _check_loss(loss, "loss_fn" if asks_pairs else "step_fn")
        _backward(model, loss)
        drew = not torch.equal(before, host_generators())
        _take_step(model, make_optimizer)
        _evaluate(model, loss_of, eval_batch, batch)
        _warn_of_sums(model, loss_of, batch)
    return ProbeResult(draws_random=drew, loss=float(loss.detach()))


def _loss(loss_of: LossOf, model: nn.Module, batch: Batch, asks_pairs: str) -> Any:
    try:
        return loss_of(model, batch)
    except RecipeError:
        raise
    except Exception as error:
        raise RecipeError(_loss_failed(model, batch, asks_pairs, error)) from error


def _refuse_lazy(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise RecipeError(
                f"{type(model).__name__}.{name} is lazy: it has no shape before the first batch, "
                "so its parameters cannot be counted. Give the layer its input size."
            )


def _take_step(
    model: nn.Module, make_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
) -> None:
    try:
        optimizer = make_optimizer(model)
        optimizer.step()
    except RecipeError:
        raise
    except Exception as error:
        raise RecipeError(
            f"the optimizer failed: {cause(error)}. optimizer is None, a dict of "
            "AdamW settings, or a function model -> Optimizer whose step() needs no closure."
        ) from error


def _evaluate(model: nn.Module, loss_of: LossOf, eval_batch: Batch, batch: Batch) -> None:
    model.eval()
    try:
        with torch.no_grad():
            loss = loss_of(model, eval_batch)
    except Exception as error:
        raise RecipeError(
            f"a held-out batch ({describe_batch(eval_batch)}) fails where a training batch "
            f"({describe_batch(batch)}) does not: {cause(error)}. Give an "
            "eval_dataset of the same form as dataset."
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise RecipeError(
            f"the loss of a held-out batch is {describe_tensor(loss)}, not one number. "
            "Return the mean loss in evaluation too."
        )


def _warn_of_sums(model: nn.Module, loss_of: LossOf, batch: Batch) -> None:
    """Warn where a batch's loss is the sum of its halves' and not their mean."""
    n = n_samples(batch)
    if n < 2 or n % 2:
        return
    try:
        with torch.no_grad():
            whole = float(loss_of(model, batch))
            parts = (_part(batch, 0, n // 2), _part(batch, n // 2, n))
            halves = [float(loss_of(model, part)) for part in parts]
    except Exception:
        # A step function may read more than tensors: its batches cannot be cut.
        return
    total = sum(halves)
    if abs(whole - total) < 1e-3 * abs(whole) and abs(whole - total / 2) > 0.1 * abs(whole):
        warnings.warn(
            "the loss of a batch is the sum over its samples, so it grows with batch_size. "
            'Give the mean: reduction="mean".',
            ScalingWarning,
            stacklevel=6,
        )


def _part(batch: Batch, start: int, stop: int) -> Batch:
    if isinstance(batch, Tensor):
        return batch[start:stop]
    if isinstance(batch, Mapping):
        return {key: _part(value, start, stop) for key, value in batch.items()}
    return tuple(_part(value, start, stop) for value in batch)


def _build(build: Callable[[], nn.Module], size: str) -> nn.Module:
    try:
        model = build()
    except TypeError as error:
        raise RecipeError(
            f"build_model could not be called: {error}. It is called as "
            f"build_model(**{{{size!r}: value}}, **model_kwargs): check size= and model_kwargs=."
        ) from error
    except Exception as error:
        raise RecipeError(
            f"build_model failed for the smallest size: {cause(error)}. "
            "Check sizes= and model_kwargs=."
        ) from error
    if not isinstance(model, nn.Module):
        raise RecipeError(
            f"build_model returned a {type(model).__name__}, not an nn.Module. Return the model."
        )
    return model


def _check_pair(batch: Batch) -> None:
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return
    kind = type(batch).__name__
    if isinstance(batch, Mapping):
        kind = f"dict with keys {', '.join(map(repr, batch))}"
    elif isinstance(batch, tuple | list):
        kind = f"{kind} of {len(batch)}"
    raise RecipeError(
        f"a batch is a {kind}, not (inputs, targets). Give step_fn=, a function "
        "(model, batch) -> loss, in place of loss_fn."
    )


def _forward(model: nn.Module, inputs: Any) -> Any:
    try:
        return model(inputs)
    except Exception as error:
        raise RecipeError(
            f"{type(model).__name__} failed on a batch of inputs {describe_tensor(inputs)}: "
            f"{cause(error)}. The model's forward must take what the dataset "
            "yields first; check the shapes and dtype, and model_kwargs."
        ) from error


def _check_outputs(outputs: Any, asks_pairs: str) -> None:
    if not isinstance(outputs, Tensor) and asks_pairs == "tensor":
        raise RecipeError(
            f"the model returns a {type(outputs).__name__}, not a tensor. {_pick(outputs)}"
        )


def _pick(outputs: Any) -> str:
    """Return the remedy for outputs that hold the tensor that the loss wants."""
    part = ".logits"
    if isinstance(outputs, tuple | list):
        part = "[0]"
    elif isinstance(outputs, Mapping) and outputs:
        part = f"[{next(iter(outputs))!r}]"
    return (
        "Give step_fn= in place of loss_fn, such as lambda model, batch: "
        f"loss(model(batch[0]){part}, batch[1])."
    )


def _loss_failed(model: nn.Module, batch: Batch, asks_pairs: str, error: Exception) -> str:
    what = f"{cause(error)}"
    if not asks_pairs:
        return (
            f"step_fn(model, batch) failed on the first batch ({describe_batch(batch)}): {what}. "
            "It must return the batch's mean loss."
        )
    with torch.no_grad():
        outputs = model(batch[0])
    remedy = (
        "Make the model's outputs, the targets' shape and dtype, and the loss agree "
        "(cross-entropy wants int64 class numbers, MSE floats)."
    )
    return (
        f"loss_fn failed on outputs {describe_tensor(outputs)} and targets "
        f"{describe_tensor(batch[1])}: {what}. "
        f"{remedy if isinstance(outputs, Tensor) else _pick(outputs)}"
    )


def describe_batch(batch: Batch) -> str:
    """Return a batch's structure in a few words."""
    if isinstance(batch, Mapping):
        return ", ".join(f"{key}: {describe_tensor(value)}" for key, value in batch.items())
    if isinstance(batch, tuple | list):
        return ", ".join(describe_tensor(value) for value in batch)
    return describe_tensor(batch)


def _check_loss(loss: Any, name: str) -> None:
    if not isinstance(loss, Tensor):
        raise RecipeError(
            f"{name} returned a {type(loss).__name__}. Return the loss as a tensor (no .item())."
        )
    if loss.numel() != 1:
        raise RecipeError(
            f"{name} returned {describe_tensor(loss)}, not one number. Reduce it to the batch's "
            'mean: .mean(), or reduction="mean".'
        )
    if not loss.requires_grad:
        raise RecipeError(
            f"{name} returned a loss without gradient. Compute it from the model's outputs, with "
            "nothing detached and no torch.no_grad()."
        )
    if not bool(torch.isfinite(loss.detach())):
        raise RecipeError(
            f"the untrained model's loss is {float(loss.detach())}. Check the data for NaN, and "
            "the initialisation."
        )


def _backward(model: nn.Module, loss: Tensor) -> None:
    try:
        loss.backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise RecipeError(
            f"the backward pass of {type(model).__name__} failed: {cause(error)}."
        ) from error
    if all(p.grad is None for p in model.parameters() if p.requires_grad):
        raise RecipeError(
            f"no parameter of {type(model).__name__} has a gradient after the backward pass. "
            "Compute the loss from this model's outputs."
        )
