"""A stored sweep taken up again: whether the recipe is the same, and which settings it had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .errors import SweepError
from .store import RunStore, StoredSweep

_LONGEST = 40
_SHOWN = 4
_CODE = "code"
_STRUCTURE = frozenset({"members", "globals", "closure"})
"""Words of a description that say where something was found, not what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a sweep is trained, as its store remembers it.

    Attributes
    ----------
    executor : str
    checkpoint_every : float, seconds
    """

    executor: str
    checkpoint_every: float


def keep_settings(store: RunStore, sweep_id: str, settings: Settings) -> None:
    """Store the settings of a sweep that starts."""
    store.put_note(f"settings {sweep_id}", asdict(settings))


def kept_settings(store: RunStore, sweep_id: str) -> Settings | None:
    """Return the settings a sweep was started with last, or None."""
    note = store.note(f"settings {sweep_id}")
    return None if note is None else Settings(**note)


def find_stored(store: RunStore, parts: Mapping[str, Any]) -> StoredSweep:
    """Return the newest sweep of a store, if it was made from this recipe.

    Parameters
    ----------
    store : RunStore
    parts : mapping
        What the recipe is known by: ``recipe.parts()``.

    Raises
    ------
    SweepError
        The store holds no sweep, or the recipe differs from the stored one: says in what.
    """
    stored = store.load_sweep()
    if stored is None:
        raise SweepError(f"{store.path} holds no sweep yet. Start one with Sweep(recipe, plan).")
    # A part that the stored one does not name was not known by it yet, and says nothing.
    old = {key: stored.recipe_parts.get(key) for key in parts}
    if changes := differences(old, parts):
        raise SweepError(
            f"the recipe differs from the one of {store.path} in {'; '.join(changes)}. Use the "
            "recipe that the sweep was started with; or start a new sweep, in the same file if "
            f"you like: Sweep(recipe, plan_sweep(recipe, …), store={str(store.path)!r})."
        )
    return stored


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what changed between two descriptions, such as ``optimizer.lr (0.01 -> 0.02)``."""
    found = list(dict.fromkeys(_said(*change) for change in _changes((), old, new)))
    more = len(found) - _SHOWN
    return found if more <= 0 else [*found[:_SHOWN], f"and {more} more"]


def _changes(
    path: tuple[str, ...], old: Any, new: Any
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from _changes((*path, str(key)), old.get(key), new.get(key))
    elif _CODE not in path and _are_lists(old, new) and len(old) == len(new):
        for one, other in zip(old, new, strict=True):
            yield from _changes(path, one, other)
    else:
        yield path, old, new


def _are_lists(*values: Any) -> bool:
    return all(isinstance(v, Sequence) and not isinstance(v, str) for v in values)


def _said(path: tuple[str, ...], old: Any, new: Any) -> str:
    if _CODE in path:
        path = path[: path.index(_CODE)]
        return f"{_name(path)} (its code)"
    if all(_is_short(value) for value in (old, new)):
        return f"{_name(path)} ({_shown(old)} -> {_shown(new)})"
    return f"{_name(path)} (its content)"


def _name(path: tuple[str, ...]) -> str:
    return ".".join(word for word in path if word not in _STRUCTURE)


def _is_short(value: Any) -> bool:
    return not isinstance(value, Mapping) and len(repr(value)) <= _LONGEST


def _shown(value: Any) -> str:
    return "none" if value is None else repr(value)
