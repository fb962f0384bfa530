"""The back-test that stands beside every answer."""

from __future__ import annotations

import numpy as np
import pytest

from scaling_nb import LawFit, backtest, fit_law, published, simulate
from scaling_nb.fit.held_out import hide_largest
from scaling_nb.simulation import IsoFlopDesign, RandomDesign

LAW = published["besiroglu_2024"]
RUNS = simulate(LAW, IsoFlopDesign(budgets=(1e18, 1e19, 1e20), n_sizes=7), 0.004, 0)


@pytest.mark.parametrize("objective", ["log-huber", "mse"])
def test_it_is_the_back_test_of_the_same_fit(objective):
    fit = fit_law(RUNS, objective=objective, fixed={"E": 1.8}, bootstrap=20)
    tested = backtest(RUNS, objective=objective, fixed={"E": 1.8})
    assert fit.held_out == tested.summary
    assert fit.held_out.n_hidden == 7
    assert fit.held_out.extrapolation == pytest.approx(10)


def test_it_keeps_the_weights_of_the_fit():
    weights = np.linspace(0.1, 2, len(RUNS))
    one, other = (fit_law(RUNS, weights=w, bootstrap=20).held_out for w in (None, weights))
    assert one.rmse != other.rmse


def test_every_answer_shows_it_and_json_keeps_it():
    fit = fit_law(RUNS, bootstrap=20)
    again = LawFit.from_json(fit.to_json())
    assert again.held_out == fit.held_out == again.allocate(1e22).held_out
    assert "back-test: the largest budget, hidden (10 times further)" in str(fit.allocate(1e22))
    assert fit_law(RUNS, bootstrap=0).held_out is None


def test_two_budgets_leave_nothing_to_test_with():
    two = RUNS.where(budget=[1e18, 1e19])
    assert fit_law(two, bootstrap=20).held_out is None


def test_without_budgets_the_top_fifth_by_compute_is_hidden():
    table = simulate(LAW, RandomDesign(n_runs=50), 0.004, 0)
    hide, threshold, what, _ = hide_largest(table)
    assert hide.sum() == 10
    assert what == "the fifth of the runs with the most compute"
    assert (6 * table.N * table.D)[hide].min() == threshold
