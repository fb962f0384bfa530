"""Tables as other people write them."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from scaling_nb.errors import RunsError, ScalingWarning
from scaling_nb.records import RunTable


def frame(**columns):
    return pd.DataFrame({"N": [1e8, 2e8], "D": [2e9, 4e9], "loss": [3.1, 2.9], **columns})


def written(tmp_path, text, name="runs.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_missing_loss_says_what_is_needed():
    with pytest.raises(RunsError, match=r"no column for loss.*N, D, accuracy.*columns="):
        RunTable.from_frame(pd.DataFrame({"N": [1e8], "D": [2e9], "accuracy": [0.3]}))


def test_bad_rows_stay_with_line_number_and_reason(tmp_path):
    path = written(
        tmp_path,
        "N,D,loss,status\n1e8,2e9,3.1,finished\n1e8,2e9,nan,finished\n0,2e9,3.1,finished\n"
        "1e8,inf,3.1,finished\n1e8,2e9,3.1,crashed\n",
    )
    with pytest.warns(ScalingWarning, match=r"4 of 5 rows .* \(line 3\)"):
        table = RunTable.from_csv(path)
    assert len(table) == 1
    assert len(table.to_frame()) == 5
    assert list(table.exclusions.values()) == [
        "loss is missing or no number (line 3)",
        "N is 0, not positive (line 4)",
        "D is infinite (line 5)",
        "status is crashed (line 6)",
    ]


def test_line_numbers_count_line_breaks_inside_a_cell(tmp_path):
    path = written(
        tmp_path,
        'N,D,loss,note\n1e8,2e9,3.1,"two\nlines"\n\n1e8,2e9,nan,\n1e8,2e9,3.0,"a\n\nb"\n0,2e9,3.1,\n',
    )
    with pytest.warns(ScalingWarning):
        table = RunTable.from_csv(path)
    assert list(table.exclusions.values()) == [
        "loss is missing or no number (line 5)",
        "N is 0, not positive (line 9)",
    ]


def test_many_bad_rows_make_one_warning_that_counts_them():
    bad = pd.DataFrame({"N": [1e8] * 50, "D": [2e9] * 50, "loss": [3.0] + [math.nan] * 49})
    with pytest.warns(ScalingWarning) as caught:
        table = RunTable.from_frame(bad)
    assert len(caught) == 1
    assert "and 44 more" in str(caught[0].message)
    assert len(table.exclusions) == 49


def test_no_usable_row_is_an_error():
    with pytest.raises(RunsError, match="none of the 1 rows can be used"):
        RunTable.from_frame(pd.DataFrame({"N": [1e8], "D": [2e9], "loss": [math.nan]}))


@pytest.mark.parametrize("text", ["", "N,D,loss\n"])
def test_an_empty_file_is_an_error(tmp_path, text):
    with pytest.raises(RunsError):
        RunTable.from_csv(written(tmp_path, text))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_a_byte_order_mark(tmp_path, separator):
    lines = [separator.join(row) for row in (("params", "tokens", "loss"), ("70B", "1.4T", "1.9"))]
    table = RunTable.from_csv(written(tmp_path, "\ufeff" + "\n".join(lines)))
    assert table.N[0] == 70e9
    assert table.D[0] == 1.4e12


@pytest.mark.parametrize(
    ("text", "n", "loss"),
    [
        ("N;D;loss\n1000000;2e7;3,21\n2000000;4e7;3,01\n", 1e6, 3.21),
        ("N;D;loss\n1.000.000;20.000.000;3,214\n2.000.000;40.000.000;3,01\n", 1e6, 3.214),
        ("N\tD\tloss\n1,5e+06\t2e7\t3,214\n2e6\t4e7\t3,012\n", 1.5e6, 3.214),
        ("N;D;loss\n1,000,000;20,000,000;3.214\n2,000,000;40,000,000;3.01\n", 1e6, 3.214),
        ("N;D;loss\n1000000;20000000;3.214\n2000000;40000000;3.01\n", 1e6, 3.214),
        ('N,D,loss\n1000000,2e7,"3,21"\n2000000,4e7,"3,01"\n', 1e6, 3.21),
        ('N,D,loss\n"1,000,000","20,000,000",3.214\n"2,000,000",4e7,3.01\n', 1e6, 3.214),
        ("N;D;loss\n1,5B;30B;3,214\n2B;40B;3,012\n", 1.5e9, 3.214),
    ],
)
def test_commas_are_decimal_points_or_group_thousands_as_the_file_means_them(
    tmp_path, text, n, loss
):
    table = RunTable.from_csv(written(tmp_path, text))
    assert (len(table), table.N[0], table.L[0]) == (2, n, loss)


def test_commas_in_a_run_name_are_no_numbers(tmp_path):
    table = RunTable.from_csv(
        written(tmp_path, "run_id;comment;N;D;loss\na,5;0,5;1e6;2e7;3.21\nb;c;2e6;4e7;3.01\n")
    )
    assert list(table.L) == [3.21, 3.01]
    assert table.run_ids[0] == "a,5"
    assert table.columns["comment"][0] == "0,5"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_other_encodings_say_how_to_save_it(tmp_path, encoding):
    path = tmp_path / "runs.csv"
    path.write_bytes("N,D,loss,größe\n1e6,2e7,3.2,1\n".encode(encoding))
    with pytest.raises(RunsError, match="not text in UTF-8.*CSV UTF-8"):
        RunTable.from_csv(path)


def test_repeated_cells_become_seeds():
    table = RunTable.from_frame(
        pd.DataFrame({"N": [1e8, 1e8, 2e8], "D": [2e9] * 3, "loss": [3.0, 3.1, 2.9]})
    )
    assert list(table.column("seed")) == [0, 1, 0]


def test_identifiers_are_unique():
    table = RunTable.from_frame(
        pd.DataFrame(
            {"run_id": ["a", "a", "a#2", ""], "N": [1e8] * 4, "D": [2e9] * 4, "loss": [3.0] * 4}
        )
    )
    assert table.run_ids == ("a", "a#3", "a#2", "run-3")


def test_wrong_units_warn():
    with pytest.warns(ScalingWarning, match="millions"):
        RunTable.from_frame(frame(C=[1.2e24, 4.8e24]))


def test_other_columns_are_kept_and_never_hide_ours():
    table = RunTable.from_frame(frame(optimizer=["adam", "muon"], val_loss=[2.0, 1.9]),
                                columns={"loss": "val_loss"})  # fmt: skip
    assert list(table.L) == [2.0, 1.9]
    assert list(table.column("given_loss")) == [3.1, 2.9]
    assert list(table.column("optimizer")) == ["adam", "muon"]


def test_blank_lines_count_as_lines_but_not_as_rows(tmp_path):
    path = written(tmp_path, "N,D,loss\n\n1e8,2e9,3.1\n,,\n1e8,2e9,zero\n")
    with pytest.warns(ScalingWarning, match=r"1 of 2 rows .*line 5"):
        table = RunTable.from_csv(path)
    assert len(table) == 1


@pytest.mark.parametrize("row", ["1e8,2e9,3.1,", "1e8,2e9,3.1,7", "1e8,2e9,3.1,7,8"])
def test_a_row_longer_than_the_header_is_refused(tmp_path, row):
    with pytest.raises(RunsError, match="is no CSV of runs"):
        RunTable.from_csv(written(tmp_path, f"N,D,loss\n{row}\n"))


@pytest.mark.parametrize(
    "values",
    [pd.array([70_000_000_000, None], dtype="Int64"), pd.Categorical(["70B", None]), ["70B", 0]],
)
def test_columns_of_any_type_are_read(values):
    raw = pd.DataFrame({"N": values, "D": [1e12, 1e12], "loss": [2.0, 2.0]})
    with pytest.warns(ScalingWarning, match=r"1 of 2 rows .* \(row 1\)"):
        assert list(RunTable.from_frame(raw).N) == [70e9]
