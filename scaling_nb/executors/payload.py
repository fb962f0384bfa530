"""A recipe on its way to worker processes: pickled once, large arrays shared by all of them.

Classes and functions of a notebook travel by value (cloudpickle); arrays lie in one file beside,
which every worker maps: pages that nobody changes exist once.
"""

from __future__ import annotations

import copy
import io
import mmap
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from ..errors import SweepError
from ..training.recipe import Recipe

_RECIPE, _ARRAYS, _SIZES = "recipe.pickle", "arrays.bin", "sizes.pickle"


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Sends an array that lies in a file as the file's name: it may be larger than memory."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray) and (place := _place_in_file(obj)) is not None:
            return _open_array, place
        return super().reducer_override(obj)


def _place_in_file(array: np.ndarray[Any, Any]) -> tuple[Any, ...] | None:
    """Return (path, dtype, shape, offset) of an array that is a contiguous view of a memmap."""
    root: Any = array
    while isinstance(root, np.ndarray) and not isinstance(root, np.memmap):
        root = root.base
    if not isinstance(root, np.memmap) or root.filename is None:
        return None
    if not array.flags.c_contiguous or array.dtype.hasobject:
        return None
    mapped = np.frombuffer(root._mmap, np.uint8).ctypes.data  # type: ignore[attr-defined]
    start = root.offset - root.offset % mmap.ALLOCATIONGRANULARITY
    offset = start + array.ctypes.data - mapped
    return str(root.filename), array.dtype.str, array.shape, offset


def _open_array(path: str, dtype: str, shape: tuple[int, ...], offset: int) -> Any:
    return np.memmap(path, np.dtype(dtype), "c", offset, shape)


def pickle_recipe(
    recipe: Recipe, buffer_callback: Callable[[pickle.PickleBuffer], object]
) -> bytes:
    """Return a recipe as bytes; its arrays go to `buffer_callback` uncopied.

    Raises
    ------
    SweepError
        Something in it cannot be pickled: says what.
    """
    # Training reads the prepared data; what it was made of need not travel.
    recipe = copy.copy(recipe)
    object.__setattr__(recipe, "dataset", None)
    object.__setattr__(recipe, "eval_dataset", None)
    target = io.BytesIO()
    try:
        _Pickler(target, protocol=5, buffer_callback=buffer_callback).dump(recipe)
    except Exception as error:
        raise SweepError(
            f"the recipe cannot be sent to worker processes: {type(error).__name__}: {error}. "
            'Use executor="threads", or make what it names picklable.'
        ) from error
    return target.getvalue()


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write a recipe for :func:`read_recipe`; raises as :func:`pickle_recipe` does."""
    buffers: list[pickle.PickleBuffer] = []
    (folder / _RECIPE).write_bytes(pickle_recipe(recipe, buffers.append))
    with open(folder / _ARRAYS, "wb") as file:
        sizes = [file.write(buffer.raw()) for buffer in buffers]
    (folder / _SIZES).write_bytes(pickle.dumps(sizes))


def read_recipe(folder: Path) -> Recipe:
    """Read what this package itself wrote for its own workers into a private folder."""
    sizes: list[int] = pickle.loads((folder / _SIZES).read_bytes())
    views: list[memoryview] = []
    if sum(sizes):
        with open(folder / _ARRAYS, "rb") as file:
            # Copy on write: user code may change its arrays, and nobody else sees it.
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        start = 0
        for size in sizes:
            views.append(mapped[start : start + size])
            start += size
    else:
        views = [memoryview(bytearray()) for _ in sizes]
    recipe: Recipe = pickle.loads((folder / _RECIPE).read_bytes(), buffers=views)
    return recipe
