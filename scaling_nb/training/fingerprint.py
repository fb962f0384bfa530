"""What identifies a recipe: everything that changes the result of a run, by content."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..records import content_hash

Scalar = str | int | float | bool | None


def describe(value: Any) -> Any:
    """Return a JSON-ready description of `value` that changes when its behaviour does.

    Functions and classes are described by their source where it can be read (so a notebook cell
    run again unchanged gives the same description), else by their code, else by name.
    """
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [describe(item) for item in value]
    if isinstance(value, functools.partial):
        return ["partial", describe(value.func), describe(value.args), describe(value.keywords)]
    if isinstance(value, torch.Tensor | np.ndarray):
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        return [str(array.dtype), list(array.shape), content_hash(array.tobytes().hex())]
    if inspect.ismethod(value):
        return ["method", describe(value.__func__), describe(value.__self__)]
    if callable(value) and not isinstance(value, torch.nn.Module):
        return _describe_callable(value)
    return f"{type(value).__module__}.{type(value).__qualname__}: {value!r}"


def _describe_callable(value: Any) -> Any:
    name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value))}"
    try:
        source = inspect.getsource(value)
    except (OSError, TypeError):
        code = getattr(value, "__code__", None)
        return [name, code.co_code.hex(), repr(code.co_consts)] if code else [name]
    captured = _captured(value)
    return [name, content_hash(source), captured] if captured else [name, content_hash(source)]


def _captured(value: Any) -> list[Any]:
    """Values a closure holds, as far as they are plain."""
    cells = getattr(value, "__closure__", None) or ()
    contents = (cell.cell_contents for cell in cells)
    return [c for c in contents if isinstance(c, str | int | float | bool)]
