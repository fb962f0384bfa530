"""A recipe's plain arguments: whole numbers and sizes, checked in sentences."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..errors import RecipeError


def whole_number(name: str, value: Any, least: int) -> int:
    """Return `value` as an int (numpy's too); raise `RecipeError` if it is none, or too small."""
    if not isinstance(value, bool | np.bool_):
        try:
            if (number := operator.index(value)) >= least:
                return number
        except TypeError:
            pass
    wanted = "a positive whole number" if least else "a whole number, 0 or more"
    raise RecipeError(f"{name} is {value!r}. Give {wanted}.")


def checked_sizes(sizes: Any) -> tuple[int | float, ...]:
    """Return sizes as plain positive numbers; raise `RecipeError` for anything else."""
    try:
        values = [v.item() if hasattr(v, "item") else v for v in sizes]
    except TypeError:
        raise RecipeError(f"sizes is {sizes!r}. Give a list of values, or None.") from None
    if not values:
        raise RecipeError("sizes is empty. Give values, or None to have them found.")
    for value in values:
        wrong = isinstance(value, bool) or not isinstance(value, int | float)
        if wrong or not 0 < value < math.inf:
            raise RecipeError(f"sizes has {value!r} in it. Give positive numbers.")
    return tuple(values)
