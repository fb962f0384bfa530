from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from scaling_nb.errors import RunsError, ScalingWarning
from scaling_nb.records import COLUMNS, Run, RunTable


def frame(**columns):
    return pd.DataFrame({"N": [1e8, 2e8], "D": [2e9, 4e9], "loss": [3.1, 2.9], **columns})


def test_three_columns_are_enough():
    table = RunTable.from_frame(frame())
    assert len(table) == 2
    np.testing.assert_array_equal(table.C, 6 * table.N * table.D)
    assert table.notes == ("There is no column for compute: C = 6·N·D.",)
    assert "6·N·D" in repr(table)


def test_tokens_follow_from_compute():
    table = RunTable.from_frame(pd.DataFrame({"N": [1e8], "flops": [1.2e18], "loss": [3.0]}))
    assert table.D[0] == pytest.approx(2e9)


def test_integers_do_not_overflow():
    table = RunTable.from_frame(pd.DataFrame({"N": [70_000_000_000], "D": [1_400_000_000_000],
                                              "loss": [1.9]}))  # fmt: skip
    assert table.C[0] == pytest.approx(5.88e23)


def test_exclusion_is_undoable_and_survives_export(tmp_path):
    table = RunTable.from_frame(frame(run_id=["a", "b"]))
    fewer = table.exclude("a", reason="diverged, says Ann")
    assert fewer.run_ids == ("b",)
    assert fewer.restore().run_ids == ("a", "b")
    fewer.to_csv(tmp_path / "runs.csv")
    again = RunTable.from_csv(tmp_path / "runs.csv")
    assert again.exclusions == {"a": "diverged, says Ann"}
    assert again.restore("a").to_frame().equals(table.to_frame())


def test_a_table_goes_to_another_process_whole():
    table = RunTable.from_frame(frame(run_id=["a", "b"]), unit="images").exclude("a", reason="odd")
    again = pickle.loads(pickle.dumps(table))
    assert again.to_frame().equals(table.to_frame())
    assert (again.unit, again.notes, again.exclusions) == ("images", table.notes, {"a": "odd"})
    assert again.data_hash == table.data_hash
    with pytest.raises(TypeError):
        again.columns["N"] = table.N


def test_an_unknown_run_cannot_be_excluded():
    with pytest.raises(RunsError, match="no run is called 'z'"):
        RunTable.from_frame(frame()).exclude("z", reason="?")


def test_where_keeps_the_rows_that_fit():
    table = RunTable.from_frame(frame(budget=[1e18, 1e19]))
    assert list(table.where(budget=1e18).N) == [1e8]
    assert list(table.where([False, True]).N) == [2e8]


def test_budgets_are_inferred_on_request():
    n = np.geomspace(1e7, 1e8, 5)
    compute = np.repeat([1e17, 1e18], 5)
    table = RunTable.from_frame(
        pd.DataFrame({"N": np.tile(n, 2), "D": compute / 6 / np.tile(n, 2), "loss": 3.0})
    )
    assert list(table.with_budgets().column("budget")) == [1e17] * 5 + [1e18] * 5
    with pytest.raises(RunsError, match="does not cluster"):
        RunTable.from_frame(frame()).with_budgets()


def test_the_counting_convention_changes_n_alone():
    table = RunTable.from_frame(frame(n_non_embedding=[6e7, 1.5e8]))
    other = table.with_convention("non_embedding")
    assert list(other.N) == [6e7, 1.5e8]
    np.testing.assert_array_equal(other.C, table.C)
    with pytest.raises(RunsError, match="non_embedding"):
        table.with_convention("matmul")


def test_epochs_are_tokens_over_unique_tokens():
    assert list(RunTable.from_frame(frame(unique_tokens=[1e9, 4e9])).epochs) == [2.0, 1.0]


def test_the_data_hash_ignores_order_and_sees_every_number():
    table = RunTable.from_frame(frame())
    assert table.data_hash == RunTable.from_frame(frame().iloc[::-1]).data_hash
    assert table.data_hash != RunTable.from_frame(frame(loss=[3.1, 2.9001])).data_hash


def test_records_and_columns_agree():
    run = Run(run_id="a", N=1e8, D=2e9, C=1.2e18, loss=3.0, group="t1")
    table = RunTable.from_runs([run])
    assert tuple(table.columns) == COLUMNS
    (again,) = table
    assert (again.run_id, again.N, again.group) == ("a", 1e8, "t1")


def test_a_table_shows_itself_in_a_few_lines():
    table = RunTable.from_frame(frame(budget=[1e18, 1e18], run_id=["a<b", "c"])).exclude(
        "a<b", reason="odd"
    )
    assert len(repr(table).splitlines()) < 10
    assert "1 runs at 1 compute budget, 1 excluded" in repr(table)
    assert "a&lt;b" in table._repr_html_()


text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
positive = st.floats(min_value=1e-3, max_value=1e26)
maybe = st.one_of(st.just(math.nan), positive)
runs = st.builds(
    Run,
    run_id=text, N=positive, D=positive, C=positive, loss=positive, budget=maybe, seed=maybe,
    size=maybe, group=text, schedule=text, message=text, lr=maybe, unique_tokens=maybe,
    excluded=st.sampled_from(["", "diverged", 'said "no", twice']),
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(runs, min_size=1, max_size=6, unique_by=lambda run: run.run_id))
def test_a_csv_round_trip_changes_nothing(tmp_path_factory, rows):
    rows = [row for row in rows if row.run_id]
    table = RunTable.from_runs(rows)
    if not rows:
        return
    path = tmp_path_factory.mktemp("csv") / "runs.csv"
    table.to_csv(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScalingWarning)
        again = RunTable.from_csv(path)
    pd.testing.assert_frame_equal(again.to_frame(), table.to_frame(), check_exact=True)
    assert again.data_hash == table.data_hash
