from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from referee import needs_referee, reference, table

import scaling_nb as snb
from scaling_nb import ChinchillaLaw, RunTable, backtest
from scaling_nb.errors import FitError, TooFewRunsError

LAW = ChinchillaLaw()
TRUE = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}


def runs(budgets=(1e18, 1e19, 1e20)) -> RunTable:
    n = np.concatenate([np.sqrt(c / 72) * np.exp(np.linspace(-1.5, 1.5, 7)) for c in budgets])
    c = np.repeat(budgets, 7)
    d = c / 6 / n
    frame = pd.DataFrame({"N": n, "D": d, "loss": LAW.predict(TRUE, n, d), "budget": c})
    return RunTable.from_frame(frame)


def test_exact_runs_are_predicted_exactly():
    result = backtest(runs())
    assert len(result.run_ids) == 7
    assert result.threshold == 1e20
    assert result.extrapolation == pytest.approx(10.0)
    assert result.rmse < 1e-9
    assert result.fit.n_runs == 14
    assert set(result.fit.runs.exclusions) == set(result.run_ids)
    assert "10 times further" in str(result)


def test_two_budgets_can_be_hidden():
    result = backtest(runs((1e17, 1e18, 1e19, 1e20)), n_budgets=2, objective="mse")
    assert len(result.run_ids) == 14
    assert result.fit.objective == "mse"


def test_one_budget_leaves_nothing():
    with pytest.raises(TooFewRunsError):
        backtest(runs((1e18,)))


@needs_referee
@pytest.mark.parametrize("name", ["llama3_raw_loss", "epoch_chinchilla_240", "marin_comma"])
@pytest.mark.parametrize("objective", ["huber_1e-3", "mse"])
def test_the_reference_back_tests(name, objective):
    expected = reference()[name][objective]["backtest_top_budget"]
    result = backtest(table(name), objective="mse" if objective == "mse" else "log-huber")
    assert len(result.run_ids) == expected["n_test"]
    assert result.fit.n_runs == expected["n_train"]
    assert result.fit.exponent_N == pytest.approx(expected["a_train"], rel=1e-4)
    assert result.rmse == pytest.approx(expected["rmse_log"], rel=1e-4)
    assert abs(result.bias) == pytest.approx(abs(expected["bias_log"]), rel=1e-3)


def test_a_back_test_shows_itself_run_by_run():
    from scaling_nb.simulation import IsoFlopDesign

    design = IsoFlopDesign(budgets=(1e18, 1e19, 1e20), n_sizes=7)
    tested = backtest(snb.simulate(snb.published["besiroglu_2024"], design, 0.002, 0))
    html = tested._repr_html_()
    assert html.count("<tr>") == 1 + len(tested.run_ids)
    assert tested.run_ids[0] in html


def test_weights_of_all_runs_are_those_of_the_ones_that_stay():
    table = runs()
    weights = np.linspace(0.5, 2.0, len(table))
    tested = backtest(table, weights=weights, objective="mse")
    kept = table.where(budget=[1e18, 1e19])
    alone = snb.fit_law(kept, weights=weights[:14], objective="mse", bootstrap=0)
    assert tested.fit.params == alone.params


def test_a_back_test_hides_something():
    with pytest.raises(FitError, match="one budget or more"):
        backtest(runs(), n_budgets=0)
