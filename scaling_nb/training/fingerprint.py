"""What identifies a recipe: everything that changes the result of a run, by content.

Code is described by its compiled form, not by its place: a notebook cell run again unchanged, or
the same file run as a script and imported, describe alike; a changed line does not. Libraries are
described by name alone.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import inspect
import re
import sys
import sysconfig
import types
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

_LIBRARIES = tuple(
    str(Path(sysconfig.get_path(kind)).resolve()) for kind in ("stdlib", "purelib", "platlib")
)
_OURS = __name__.partition(".")[0]
_TORCH_INTERNALS = re.compile(r"^_|^training$")


def describe(value: Any, _seen: frozenset[int] = frozenset()) -> Any:
    """Return a JSON-ready description of `value` that changes when its behaviour does.

    An object is described by its class and its attributes; one whose class has a ``__repr__`` of
    its own, by that.
    """
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, np.generic):
        return value.item()
    if id(value) in _seen:
        return "…"
    seen = _seen | {id(value)}
    if isinstance(value, Mapping):
        return {str(key): describe(item, seen) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((describe(item, seen) for item in value), key=repr)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [describe(item, seen) for item in value]
    if isinstance(value, torch.Tensor | np.ndarray | bytes):
        return _describe_bytes(value)
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return ["partial", *(describe(part, seen) for part in parts)]
    if inspect.ismethod(value):
        return ["method", describe(value.__func__, seen), describe(value.__self__, seen)]
    if inspect.isfunction(value):
        return _describe_function(value, seen)
    if isinstance(value, type):
        return _describe_class(value, seen)
    return _describe_object(value, seen)


def _describe_bytes(value: torch.Tensor | np.ndarray[Any, Any] | bytes) -> list[Any]:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    array = np.ascontiguousarray(
        np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
    )
    return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()[:12]]


def _describe_function(function: types.FunctionType, seen: frozenset[int]) -> Any:
    if _is_library(function):
        return f"{function.__module__}.{function.__qualname__}"
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    used = {
        name: function.__globals__[name] for name in _names(code) if name in function.__globals__
    }
    return {
        "name": function.__qualname__,
        "code": _describe_code(code),
        "defaults": describe(function.__defaults__, seen),
        "keyword defaults": describe(function.__kwdefaults__, seen),
        "closure": {name: describe(_contents(cell), seen) for name, cell in cells},
        "globals": {
            name: describe(item, seen)
            for name, item in used.items()
            if not isinstance(item, types.ModuleType | types.BuiltinFunctionType)
        },
    }


def _describe_code(code: types.CodeType) -> list[Any]:
    consts = [
        _describe_code(const) if isinstance(const, types.CodeType) else repr(const)
        for const in code.co_consts
    ]
    return [code.co_code.hex(), consts, list(code.co_names), list(code.co_varnames)]


def _names(code: types.CodeType) -> list[str]:
    """Names that a function, or one defined inside it, may look up in its module."""
    inner = [name for const in code.co_consts if isinstance(const, types.CodeType)
             for name in _names(const)]  # fmt: skip
    return sorted({*code.co_names, *inner})


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _describe_class(cls: type, seen: frozenset[int]) -> Any:
    if _is_library(cls):
        return f"{cls.__module__}.{cls.__qualname__}"
    members = {
        name: describe(getattr(item, "__func__", getattr(item, "fget", item)), seen)
        for name, item in vars(cls).items()
        if not (name.startswith("__") and not inspect.isfunction(item))
    }
    return {
        "name": cls.__qualname__,
        "bases": [describe(base, seen) for base in cls.__bases__],
        "members": members,
    }


def _describe_object(value: Any, seen: frozenset[int]) -> Any:
    kind = _describe_class(type(value), seen)
    if isinstance(value, torch.nn.Module):
        state = {k: v for k, v in vars(value).items() if not _TORCH_INTERNALS.match(k)}
        children = dict(value.named_children())
        return [kind, describe(state, seen), describe(children, seen),
                describe(dict(value.state_dict()), seen)]  # fmt: skip
    own_repr = any("__repr__" in vars(base) for base in type(value).__mro__[:-1])
    if own_repr and not is_dataclass(value) and " at 0x" not in repr(value):
        return [kind, repr(value)]
    if hasattr(value, "__dict__") or hasattr(value, "__slots__"):
        names = [*getattr(value, "__dict__", ()), *getattr(type(value), "__slots__", ())]
        state = {name: getattr(value, name) for name in names if hasattr(value, name)}
        return [kind, describe(state, seen)]
    # An address in a repr would differ in every process.
    return [kind, re.sub(r" at 0x[0-9a-f]+", "", repr(value))]


def _is_library(value: Any) -> bool:
    """Whether code comes from an installed package or Python itself, not from the person."""
    module = getattr(value, "__module__", None) or ""
    if module == "builtins":
        # Code made by exec without a module name says "builtins" too.
        return getattr(builtins, value.__qualname__, None) is value
    if module.partition(".")[0] in (_OURS, "torch", "numpy"):
        return True
    # What a notebook defines lives in __main__, whose file may be a launcher in a library.
    if module == "__main__":
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and str(Path(file).resolve()).startswith(_LIBRARIES)
