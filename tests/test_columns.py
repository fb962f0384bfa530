from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from scaling_nb.columns import (
    ALIASES,
    TEXT,
    check_units,
    match_columns,
    parse_number,
    select,
    to_floats,
)
from scaling_nb.errors import RunsError
from scaling_nb.records import COLUMNS


def test_aliases_cover_every_column_of_a_run():
    assert tuple(ALIASES) == COLUMNS
    assert set(COLUMNS) >= TEXT


def test_no_alias_names_two_columns():
    keys = [alias for known, aliases in ALIASES.items() for alias in (known.lower(), *aliases)]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (["params", "tokens", "final_loss"], {"N": "params", "D": "tokens", "loss": "final_loss"}),
        (["Model Size", "Training-Tokens", "Val Loss", "FLOPs"],
         {"N": "Model Size", "D": "Training-Tokens", "loss": "Val Loss", "C": "FLOPs"}),
        (["n", "d", "l"], {"N": "n", "D": "d", "loss": "l"}),
        (["params_N", "tokens_D", "flops_C", "loss"],
         {"N": "params_N", "D": "tokens_D", "C": "flops_C", "loss": "loss"}),
    ],
)  # fmt: skip
def test_headers_are_understood(headers, found):
    assert match_columns(headers) == found


def test_an_ambiguous_header_is_refused_naming_both():
    with pytest.raises(RunsError, match=r"'loss' and 'val_loss' could each be loss"):
        match_columns(["N", "D", "loss", "val_loss"])


def test_a_given_column_settles_it():
    names = ["N", "D", "loss", "val_loss"]
    assert match_columns(names, {"loss": "val_loss"})["loss"] == "val_loss"


def test_a_given_column_must_exist():
    with pytest.raises(RunsError, match="the table has N, D"):
        match_columns(["N", "D"], {"loss": "nll"})


def test_an_exact_identifier_wins_over_its_alias():
    assert match_columns(["run_id", "name", "N", "D", "loss"])["run_id"] == "run_id"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("70B", 70e9), ("1.4T", 1.4e12), ("1,000,000", 1e6), ("300 M", 3e8), ("2.5k", 2500.0),
        ("5.76e23", 5.76e23), ("1_000", 1000.0), ("7b params", 7e9), ("-3", -3.0),
        ("5.76e23 FLOPs", 5.76e23),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(text, value):
    assert parse_number(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["", "abc", "70BB", "B", "--3", "1.2.3"])
def test_what_is_no_number(text):
    assert math.isnan(parse_number(text))


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_a_written_number_is_read_exactly(value):
    assert to_floats(pd.Series([repr(value)]))[0] == value


def columns(N, D, C=None, loss=3.0):
    N, D = np.asarray(N, float), np.asarray(D, float)
    return {
        "N": N,
        "D": D,
        "C": 6 * N * D if C is None else np.asarray(C, float),
        "loss": np.full(len(N), loss),
        "excluded": np.full(len(N), "", dtype=object),
    }


def test_right_units_pass():
    assert check_units(columns([1e8, 1e9], [2e9, 2e10])) == []


def test_millions_are_guessed_from_the_ratio():
    say = check_units(columns([70, 400], [1e9, 1e10], C=[6 * 70e6 * 1e9, 6 * 400e6 * 1e10]))
    assert "millions" in say[0]
    assert any("N is 400 at most" in sentence for sentence in say)


def test_one_odd_row_is_counted():
    compute = 6 * np.full(10, 1e8) * 1e9
    compute[3] *= 50
    (sentence,) = check_units(columns(np.full(10, 1e8), np.full(10, 1e9), C=compute))
    assert "In 1 rows" in sentence


def test_a_perplexity_is_suspected():
    (sentence,) = check_units(columns([1e8], [1e9], loss=42.0))
    assert "perplexity" in sentence


def test_excluded_rows_do_not_count_for_units():
    table = columns([1e8, 5.0], [1e9, 5.0], C=[6e17, 1e40])
    table["excluded"][1] = "wrong"
    assert check_units(table) == []


def test_selection_by_value_range_list_and_mask():
    table = {"a": np.arange(6.0), "b": np.array(list("xyxyxy"), dtype=object)}
    counted = np.ones(6, bool)
    assert list(select(table, mask=None, counted=counted, a=(2, 4))["a"]) == [2, 3, 4]
    assert list(select(table, mask=None, counted=counted, a=(None, 1))["a"]) == [0, 1]
    assert list(select(table, mask=None, counted=counted, b="x")["a"]) == [0, 2, 4]
    assert list(select(table, mask=None, counted=counted, a=[1, 5], b=["y"])["a"]) == [1, 5]
    counted[0] = False
    mask = [True, False, False, False, True]
    assert list(select(table, mask=mask, counted=counted)["a"]) == [1, 5]


def test_selection_refuses_what_it_does_not_know():
    table = {"a": np.arange(3.0)}
    counted = np.ones(3, bool)
    with pytest.raises(RunsError, match="no column 'z'"):
        select(table, mask=None, counted=counted, z=1)
    with pytest.raises(RunsError, match="mask has shape"):
        select(table, mask=[True], counted=counted)
