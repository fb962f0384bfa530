"""Which tables are refused, and which runs count for nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planned_runs import LAW, TRUE, runs

from scaling_nb import DataConstrainedLaw, RunTable, fit_law
from scaling_nb.errors import FitError, TooFewRunsError


def test_runs_without_a_loss_are_left_out_by_name():
    rows = list(runs())
    rows[4] = replace(rows[4], loss=float("nan"), status="diverged")
    table = RunTable.from_runs(rows)
    fit = fit_law(table, bootstrap=0)
    assert fit.n_runs == 20
    (note,) = [w for w in fit.warnings if w.code == "left_out"]
    assert note.run_ids == (rows[4].run_id,)
    assert rows[4].run_id in fit.runs.exclusions


def test_the_worth_of_repeats_needs_repeats():
    with pytest.raises(TooFewRunsError, match="no run repeats its data.*unique_tokens"):
        fit_law(runs(), DataConstrainedLaw(), bootstrap=0)
    held = fit_law(runs(), DataConstrainedLaw(), bootstrap=0,
                   fixed={"R_D_star": 15.4, "R_N_star": 5.3})  # fmt: skip
    assert held.params["R_D_star"] == pytest.approx(15.4)


def test_one_budget_is_refused_by_plan_or_by_count():
    n = np.geomspace(1e8, 4e9, 12)
    d = 1e20 / 6 / n * (n / 6e8) ** 0.4
    one = pd.DataFrame({"N": n, "D": d, "loss": LAW.predict(TRUE, n, d)})
    assert np.ptp(np.log(n * d)) > np.log(3)
    for column in ("C", "budget"):
        for bootstrap in (0, 100):
            with pytest.raises(TooFewRunsError, match=rf"one compute budget \({column}"):
                fit_law(one.assign(**{column: 1e20}), bootstrap=bootstrap)
    assert fit_law(one.assign(C=6 * n * d), bootstrap=0).n_runs == 12


def test_only_runs_with_weight_count():
    table = runs()
    weights = np.zeros(len(table))
    weights[[0, 5, 9, 13, 20]] = 1.0
    fit = fit_law(table, weights=weights, bootstrap=50)
    assert fit.n_runs == 5
    assert fit.status == "not_identified"
    assert "no_spare_runs" in {w.code for w in fit.warnings}
    weights[0] = 0.0
    with pytest.raises(TooFewRunsError, match="only 4 runs count"):
        fit_law(table, weights=weights, bootstrap=0)
    on_a_line = np.isin(np.arange(21), [3, 10, 17]).astype(float)
    with pytest.raises(TooFewRunsError):
        fit_law(table, weights=on_a_line, bootstrap=0)


@pytest.mark.filterwarnings("ignore::scaling_nb.errors.ScalingWarning")
@pytest.mark.parametrize("scale", [1e-13, 1e13])
def test_losses_in_a_unit_beyond_rounding_are_refused_with_the_factor(scale):
    frame = runs().to_frame()
    with pytest.raises(FitError, match="times as large"):
        fit_law(frame.assign(loss=frame["loss"] * scale))
    near = fit_law(frame.assign(loss=frame["loss"] * 1e-8), bootstrap=0)
    assert near.params["alpha"] == pytest.approx(TRUE["alpha"], rel=1e-6)


def test_only_exponents_are_shared():
    with pytest.raises(FitError, match="A, B cannot share its value"):
        fit_law(runs(), shared=("A", "B"), bootstrap=0)
