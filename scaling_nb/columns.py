"""Raw columns of somebody's table of runs: names, numbers, units, and rows to select.

Pure functions from arrays to arrays and sentences; :mod:`scaling_nb.reading` and
:class:`scaling_nb.RunTable` call them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import RunsError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

Columns = dict[str, NDArray[Any]]

TOKENS = "tokens"
"""What D counts unless somebody says otherwise."""
UNIT_COLUMN = "D_unit"
"""Column of a table at rest that names what D counts."""

TEXT = frozenset({"run_id", "status", "group", "schedule", "message", "excluded"})
"""Columns of text; every other column of :class:`scaling_nb.Run` is a float."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "run_id": ("id", "run", "name", "run_name"),
    "N": (
        *("params", "n_params", "num_params", "params_n", "nparams", "param_count"),
        *("parameters", "n_parameters", "num_parameters", "model_size", "model_params"),
    ),
    "D": (
        *("tokens", "n_tokens", "num_tokens", "tokens_d", "ntokens", "training_tokens"),
        *("train_tokens", "tokens_seen", "n_train_tokens", "dataset_size", "data_size"),
    ),
    "C": (
        *("flop", "flops", "compute", "training_flop", "training_flops", "train_flops"),
        *("flops_c", "total_flops", "compute_flops", "n_flops"),
    ),
    "loss": (
        *("l", "final_loss", "val_loss", "valid_loss", "validation_loss", "eval_loss"),
        *("test_loss", "held_out_loss", "heldout_loss", "loss_final"),
    ),
    "budget": ("compute_budget", "isoflop", "isoflop_budget", "flop_budget", "flops_budget"),
    "seed": ("random_seed",),
    "size": (),
    "status": ("state",),
    "group": ("trunk", "trunk_id", "traj", "trajectory"),
    "n_total": (),
    "n_non_embedding": ("params_non_embedding", "non_embedding_params"),
    "n_matmul": (),
    "unique_tokens": ("unique", "u", "n_unique_tokens"),
    "lr": ("learning_rate",),
    "schedule": ("lr_schedule",),
    "seconds": ("duration",),
    "message": (),
    "excluded": ("exclusion_reason",),
}
"""Other names by which a column is known; compared without case, spaces and punctuation."""

UNITS: Mapping[str, str] = {
    "N": "parameters",
    "D": "training tokens",
    "C": "training FLOP",
    "loss": "held-out loss, nats per token",
}
_C_FACTOR = 4.0
"""C / 6ND outside [1/4, 4] in the median is a unit, not attention or an embedding."""
_UNIT_OF_POWER = {3: "thousands", 6: "millions", 9: "billions", 12: "trillions"}
_TOO_SMALL = 1000.0
_TOO_LOSSY = 20.0
_SUFFIX = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_NUMBER = re.compile(
    r"\s*([+-]?(?:\d{1,3}(?:,\d{3})+|\d[\d_ ]*)?\.?\d*(?:e[+-]?\d+)?)"
    r"\s*([kmbgt]?)\s*(?:params?|tokens?|flops?)?\s*",
    re.IGNORECASE,
)
_ONE_COMMA = re.compile(r"\s*[+-]?\d*,\d+(?:e[+-]?\d+)?\s*[kmbgt]?\s*", re.IGNORECASE)
_COMMA_GROUPS = re.compile(r"\s*[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?\s*")
_DOT_GROUPS = re.compile(r"\s*[+-]?\d{1,3}(?:\.\d{3})+(?:,\d*)?\s*")


def checked_unit(unit: object) -> str:
    """Return a word for what D counts, without the space around it.

    Raises
    ------
    RunsError
        If it is none.
    """
    if not isinstance(unit, str) or not unit.strip():
        raise RunsError(f'unit is {unit!r}. Say what D counts, such as "images".')
    return unit.strip()


def loss_unit(unit: str) -> str:
    """Return the unit of the loss where D counts `unit`; empty where it is not known."""
    return "nats per token" if unit == TOKENS else ""


def _key(name: object) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(name).strip().lower()).strip("_")


def match_columns(
    names: Sequence[str], given: Mapping[str, str] | None = None, *, ambiguous_ok: bool = False
) -> dict[str, str]:
    """Return which of `names` stands for which known column.

    Parameters
    ----------
    names : sequence of str
        Headers of the table.
    given : mapping of str to str
        Known column to header, overriding the aliases.
    ambiguous_ok : bool
        Take the first of several instead of raising.

    Raises
    ------
    RunsError
        If two headers could be the same column, or one that `given` names does not exist.
    """
    if set(ALIASES) <= set(names):
        return {known: known for known in ALIASES}
    chosen = dict(given or {})
    for known, name in chosen.items():
        if known not in ALIASES or name not in names:
            raise RunsError(
                f"columns={{{known!r}: {name!r}}}: the table has {', '.join(map(str, names))}, "
                f"and the known columns are {', '.join(ALIASES)}."
            )
    taken = set(chosen.values())
    for known, aliases in ALIASES.items():
        if known in chosen:
            continue
        fits = [n for n in names if n not in taken and _key(n) in {_key(known), *aliases}]
        if known not in UNITS:
            fits = [n for n in fits if n == known] or fits
        if len(fits) > 1 and not ambiguous_ok:
            raise RunsError(
                f"{' and '.join(map(repr, fits))} could each be {known}"
                f"{f' ({UNITS[known]})' if known in UNITS else ''}. Say which with "
                f"columns={{{known!r}: {fits[0]!r}}}, or rename the others."
            )
        if fits:
            chosen[known] = fits[0]
    return chosen


def parse_number(text: str) -> float:
    """Return the number that `text` writes, NaN if none: ``"70B"``, ``"1,000"``, ``"1.4 T"``."""
    found = _NUMBER.fullmatch(text)
    if not found:
        return math.nan
    digits = re.sub(r"[,_ ]", "", found[1])
    try:
        return float(digits) * _SUFFIX[found[2].lower()]
    except ValueError:
        return math.nan


def to_floats(values: pd.Series[Any]) -> NDArray[np.float64]:
    """Return `values` as floats, reading "70B" and the like; what is no number becomes NaN.

    Where a comma cannot group thousands ("3,21"), commas are decimal points throughout.
    """
    import pandas as pd

    numbers = np.array(pd.to_numeric(values, errors="coerce"), dtype=float, copy=True)
    odd = np.flatnonzero(np.isnan(numbers) & values.notna().to_numpy())
    texts = [str(values.iloc[i]) for i in odd]
    if any(_ONE_COMMA.fullmatch(text) and not _COMMA_GROUPS.fullmatch(text) for text in texts):
        texts = [text.replace(",", ".") if text.count(",") == 1 else text for text in texts]
    numbers[odd] = [parse_number(text) for text in texts]
    return numbers


def decimal_mark(texts: Iterable[str]) -> dict[str, str]:
    """Return pandas' ``decimal`` and ``thousands`` for cells that no comma separates.

    Commas are decimal points if some cell has one and none has two; dots then group thousands
    if every cell with dots says so. Empty where commas are no decimal points.
    """
    texts = list(texts)
    if any(text.count(",") > 1 for text in texts) or not any(map(_ONE_COMMA.fullmatch, texts)):
        return {}
    dotted = [text for text in texts if "." in text]
    grouped = bool(dotted) and all(map(_DOT_GROUPS.fullmatch, dotted))
    return {"decimal": ",", "thousands": "."} if grouped else {"decimal": ","}


def to_texts(values: pd.Series[Any]) -> NDArray[Any]:
    """Return `values` as an object array of str, missing ones empty."""
    texts = values.astype(object).where(values.notna(), "").map(str)
    return np.array(texts, dtype=object, copy=True)


def unit_said(words: pd.Series[Any]) -> str:
    """Return the one unit that a column names in every row; tokens where all are empty.

    Raises
    ------
    RunsError
        If it names several, or leaves some rows empty.
    """
    said: list[str] = sorted(set(to_texts(words)))
    if said == [""]:
        return TOKENS
    if len(said) != 1:
        raise RunsError(
            f"column {UNIT_COLUMN} says {', '.join(map(repr, said))}, but the runs of one table "
            "count D alike. Split the table, or say what all of them count: unit='images'."
        )
    return said[0]


def check_units(columns: Mapping[str, NDArray[Any]], unit: str = TOKENS) -> list[str]:
    """Return complaints about units: C against 6·N·D, N and D in millions, perplexities.

    Only rows that count are looked at.
    """
    rows = columns["excluded"] == ""
    N, D, C, loss = (columns[known][rows] for known in ("N", "D", "C", "loss"))
    if not len(N):
        return []
    say = []
    ratio = C / (6.0 * N * D)
    typical = float(np.median(ratio))
    if not 1 / _C_FACTOR < typical < _C_FACTOR:
        power = 3 * round(math.log10(typical) / 3)
        scale = _UNIT_OF_POWER.get(power)
        hint = (
            f"N or D may be in {scale}, unless weights are shared, as in a convolution."
            if scale
            else "Check the units of N, D and C."
        )
        say.append(f"C is {typical:.3g} times 6·N·D in the median row. {hint}")
    elif far := np.count_nonzero((ratio < typical / 10) | (ratio > typical * 10)):
        say.append(
            f"In {far} rows C is more than ten times away from the others' ratio to 6·N·D. Look "
            f"for a run whose {unit} or FLOP were recorded wrongly."
        )
    for known, values, counts in (("N", N, "parameters"), ("D", D, f"training {unit}")):
        if values.max() < _TOO_SMALL:
            say.append(
                f"{known} is {values.max():g} at most. It is counted in {counts}, not in "
                "thousands, millions or billions."
            )
    if unit == TOKENS and np.median(loss) > _TOO_LOSSY:
        say.append(
            f"The median loss is {np.median(loss):.3g}. Laws are fitted to nats per token; the "
            "logarithm of a perplexity is one."
        )
    return say


def select(
    columns: Mapping[str, NDArray[Any]],
    *,
    mask: ArrayLike | None,
    counted: NDArray[np.bool_],
    **conditions: Any,
) -> Columns:
    """Return the rows that `mask` and every condition keep; see :meth:`RunTable.where`."""
    keep = np.ones(len(counted), dtype=bool)
    if mask is not None:
        wanted = np.asarray(mask, dtype=bool)
        if wanted.shape == counted.shape:
            keep &= wanted
        elif wanted.shape == (int(counted.sum()),):
            keep[:] = False
            keep[counted] = wanted
        else:
            raise RunsError(
                f"the mask has shape {wanted.shape}, but {int(counted.sum())} runs count, "
                f"of {len(counted)} rows. Pass one bool for each."
            )
    for name, condition in conditions.items():
        if name not in columns:
            raise RunsError(f"there is no column {name!r}; there are {', '.join(columns)}.")
        values = columns[name]
        if isinstance(condition, tuple) and len(condition) == 2:
            low, high = condition
            keep &= np.ones(len(keep), bool) if low is None else values >= low
            keep &= np.ones(len(keep), bool) if high is None else values <= high
        else:
            keep &= np.isin(values, condition if isinstance(condition, list) else [condition])
    return {name: values[keep] for name, values in columns.items()}


def summary(columns: Mapping[str, NDArray[Any]], notes: Sequence[str], unit: str) -> list[str]:
    """Return a table of runs in a few lines of text; `unit` is what D counts."""
    rows = columns["excluded"] == ""
    budgets = np.unique(columns["budget"][rows])
    budgets = budgets[np.isfinite(budgets)]
    first = f"{np.count_nonzero(rows):,} runs"
    if len(budgets):
        first += f" at {len(budgets)} compute budget{'s' if len(budgets) > 1 else ''}"
    if len(rows) > np.count_nonzero(rows):
        first += f", {np.count_nonzero(~rows):,} excluded"
    lines = [first]
    nats = "nats" if unit == TOKENS else ""
    for known, its in (("N", "parameters"), ("D", unit), ("C", "FLOP"), ("loss", nats)):
        values = columns[known][rows]
        if len(values):
            lines.append(f"{known} {values.min():.4g} to {values.max():.4g} {its}".rstrip())
    for i in np.flatnonzero(~rows)[:3]:
        lines.append(f"excluded: {columns['run_id'][i]}: {columns['excluded'][i]}")
    return [*lines, *notes]
