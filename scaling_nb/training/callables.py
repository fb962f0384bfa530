"""A recipe's functions: what can be seen to be wrong before anything is built."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..errors import RecipeError, ScalingWarning


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
