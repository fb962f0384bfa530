from __future__ import annotations

import inspect

import pytest

from scaling_nb import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_in_the_tree_and_has_a_builtin_parent(cls):
    assert f"{cls.__name__} " in errors.__doc__ or f"{cls.__name__}\n" in errors.__doc__
    if cls not in (errors.ScalingError, errors.ScalingWarning):
        assert issubclass(cls, errors.ScalingError)
        assert issubclass(cls, ValueError | RuntimeError | OSError)
