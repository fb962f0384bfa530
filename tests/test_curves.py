from __future__ import annotations

import numpy as np
import pytest

from scaling_nb.curves import Curve, curves_of
from scaling_nb.errors import RunsError
from scaling_nb.records import Run, RunTable


def test_a_curve_counts_its_flops():
    curve = Curve.of("a", 1e8, [1e6, 2e6], [4.0, 3.0])
    np.testing.assert_allclose(curve.flops, [6e14, 1.2e15])
    assert not curve.decayed
    with pytest.raises(ValueError, match="read-only"):
        curve.loss[0] = 1.0


@pytest.mark.parametrize(
    ("tokens", "loss"), [([1, 2], [3.0]), ([2, 1], [3.0, 2.0]), ([1, 1], [3.0, 2.0])]
)
def test_a_malformed_curve_is_refused(tokens, loss):
    with pytest.raises(RunsError, match="curve 'a'"):
        Curve.of("a", 1e8, tokens, loss)


def test_curves_of_a_table_use_each_runs_own_flops():
    table = RunTable.from_runs(
        Run(run_id=name, N=1e6, D=1e7, C=9e13, loss=3.0) for name in ("a", "b", "c")
    ).exclude("c", reason="odd")
    logged = {"a": ([1e6, 1e7], [5.0, 3.0]), "b": ([], []), "c": ([1.0], [1.0])}
    (curve,) = curves_of(table, logged)
    assert curve.run_id == "a"
    np.testing.assert_allclose(curve.flops, [9e12, 9e13])


def test_what_a_resumed_run_logged_twice_counts_once():
    table = RunTable.from_runs([Run(run_id="a", N=1e6, D=4.0, C=24e6, loss=3.0)])
    (curve,) = curves_of(table, {"a": ([1, 2, 3, 2, 3, 4], [9, 8, 7, 6, 5, 4])})
    assert list(curve.tokens) == [1, 2, 3, 4]
    assert list(curve.loss) == [9, 6, 5, 4]
