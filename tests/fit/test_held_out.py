"""The back-test that stands beside every answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scaling_nb import (
    LawFit,
    backtest,
    fit_envelope,
    fit_isoflop,
    fit_law,
    published,
    simulate,
)
from scaling_nb.fit.held_out import hide_largest
from scaling_nb.simulation import IsoFlopDesign, RandomDesign, simulate_curves

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


def test_a_run_without_a_budget_is_hidden_by_its_compute():
    budget = RUNS.column("budget").copy()
    budget[[0, -1]] = np.nan
    table = replace(RUNS, columns={**RUNS.columns, "budget": budget})
    hide, threshold, what, reach = hide_largest(table)
    assert (hide.sum(), threshold, what) == (7, 1e20, "the largest budget")
    assert reach == pytest.approx(10)


def test_approach_2_is_tested_on_its_largest_budget():
    fit = fit_isoflop(RUNS, bootstrap=20)
    smaller = fit_isoflop(RUNS.where(budget=[1e18, 1e19]), bootstrap=0)
    error = np.log(fit.minima[-1].loss / smaller.predict(1e20))
    assert fit.held_out.rmse == pytest.approx(abs(error))
    assert fit.held_out.extrapolation == pytest.approx(10)
    assert "back-test: the largest budget" in str(fit.allocate(1e22))
    assert smaller.held_out is None


def test_an_envelope_is_tested_on_its_last_fifth():
    curves = simulate_curves(LAW, np.geomspace(3e7, 3e10, 16), 1e12, 0.003, 0)
    fit = fit_envelope(curves, bootstrap=20)
    assert 0 < fit.held_out.rmse < 0.05
    assert fit.held_out.extrapolation > 2
    assert "the last fifth of the envelope, hidden" in str(fit.allocate(1e22))


def test_what_was_hidden_is_said_where_there_are_no_budgets():
    fit = fit_law(simulate(LAW, RandomDesign(n_runs=50), 0.004, 0), bootstrap=20)
    assert "the fifth of the runs with the most compute, hidden" in str(fit.allocate(1e22))
