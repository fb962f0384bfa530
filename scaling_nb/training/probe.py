"""The contract probe: one batch through the smallest model before anything is launched."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import RecipeError, ScalingWarning
from .batches import Batch, n_samples
from .counting import count_params, describe_tensor
from .generators import host_generators, seeded_globals

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


def check_callables(
    build_model: Any,
    size: str,
    model_kwargs: Mapping[str, Any],
    loss_fn: Any,
    step_fn: Any,
) -> None:
    """Refuse what can be seen to be wrong without building anything; raise `RecipeError`."""
    if isinstance(build_model, nn.Module):
        raise RecipeError(
            f"build_model is a {type(build_model).__name__} that is built already. Give the class "
            "or a function, so that every size can be built."
        )
    if not callable(build_model):
        raise RecipeError(
            f"build_model is a {type(build_model).__name__}. Give a class or function that "
            "returns an nn.Module."
        )
    _check_arguments(build_model, size, model_kwargs)
    if size in model_kwargs:
        warnings.warn(
            f"model_kwargs names {size!r} too, which is the size that the sweep varies: the "
            f"sweep's value wins. Leave {size!r} out of model_kwargs.",
            ScalingWarning,
            stacklevel=4,
        )
    if isinstance(loss_fn, type):
        raise RecipeError(
            f"loss_fn is the class {loss_fn.__name__}; did you mean {loss_fn.__name__}()?"
        )
    for name, function in (("loss_fn", loss_fn), ("step_fn", step_fn)):
        if function is not None and not callable(function):
            raise RecipeError(f"{name} is a {type(function).__name__}. Give a function.")
    if step_fn is not None:
        _check_arity("step_fn", step_fn, "(model, batch)")
    elif loss_fn is not None:
        _check_arity("loss_fn", loss_fn, "(outputs, targets)")


def _check_arguments(build_model: Callable[..., Any], size: str, kwargs: Mapping[str, Any]) -> None:
    try:
        parameters = inspect.signature(build_model).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [
        n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    name = getattr(build_model, "__name__", type(build_model).__name__)
    for argument, source in [(size, "size="), *((k, "model_kwargs") for k in kwargs)]:
        if argument not in known:
            raise RecipeError(
                f"{name} has no argument {argument!r} (named in {source}). "
                f"Its arguments are: {', '.join(known) or 'none'}."
            )
    given = {size, *kwargs}
    missing = [
        n for n in known if parameters[n].default is inspect.Parameter.empty and n not in given
    ]
    if missing:
        raise RecipeError(
            f"{name} needs {', '.join(map(repr, missing))} as well. Give "
            f"model_kwargs=dict({', '.join(f'{n}=…' for n in missing)})."
        )


def _check_arity(name: str, function: Callable[..., Any], wanted: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise RecipeError(
            f"{name}{signature} cannot be called as {name}{wanted}: {error}. "
            "Give a function of these two arguments."
        ) from None


def loss_of_batch(
    model: nn.Module, batch: Batch, loss_fn: LossFn | None, step_fn: StepFn | None
) -> Tensor:
    """Return the mean loss of one batch: ``step_fn(model, batch)``, or loss_fn(model(x), y)."""
    if step_fn is not None:
        return step_fn(model, batch)
    inputs, targets = batch
    outputs = model(inputs)
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
        batch, _ = [next(stream) for stream in [batches()] for _ in range(2)]
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
            f"the optimizer failed: {type(error).__name__}: {error}. optimizer is None, a dict of "
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
            f"({describe_batch(batch)}) does not: {type(error).__name__}: {error}. Give an "
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
            "the loss of a batch is the sum over its samples, so it grows with batch_size and is "
            'not in nats per token. Give the mean: reduction="mean".',
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
            f"build_model failed for the smallest size: {type(error).__name__}: {error}. "
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
            f"{type(error).__name__}: {error}. The model's forward must take what the dataset "
            "yields first; check the shapes and dtype, and model_kwargs."
        ) from error


def _check_outputs(outputs: Any, asks_pairs: str) -> None:
    if not isinstance(outputs, Tensor) and asks_pairs == "tensor":
        raise RecipeError(
            f"the model returns a {type(outputs).__name__}, not a tensor. Give step_fn=, such as "
            "lambda model, batch: model(**batch).loss, in place of loss_fn."
        )


def _loss_failed(model: nn.Module, batch: Batch, asks_pairs: str, error: Exception) -> str:
    what = f"{type(error).__name__}: {error}"
    if not asks_pairs:
        return (
            f"step_fn(model, batch) failed on the first batch ({describe_batch(batch)}): {what}. "
            "It must return the batch's mean loss."
        )
    with torch.no_grad():
        outputs = model(batch[0])
    return (
        f"loss_fn failed on outputs {describe_tensor(outputs)} and targets "
        f"{describe_tensor(batch[1])}: {what}. Make the model's outputs, the targets' shape and "
        "dtype, and the loss agree (cross-entropy wants int64 class numbers, MSE floats)."
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
            f"the backward pass of {type(model).__name__} failed: {type(error).__name__}: {error}."
        ) from error
    if all(p.grad is None for p in model.parameters() if p.requires_grad):
        raise RecipeError(
            f"no parameter of {type(model).__name__} has a gradient after the backward pass. "
            "Compute the loss from this model's outputs."
        )
