from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import scaling_nb as snb
from scaling_nb.errors import FitError
from scaling_nb.simulation import GridDesign, IsoFlopDesign, RandomDesign, simulate_curves

LAW = snb.published["besiroglu_2024"]


@pytest.fixture(scope="module")
def runs():
    design = IsoFlopDesign(budgets=(1e18, 1e19, 1e20, 1e21), n_sizes=7)
    return snb.simulate(LAW, design, 0.002, 0)


def test_approaches_agree_on_runs_of_a_known_law(runs):
    comparison = snb.compare(runs, bootstrap=200)
    answers = {e.method: e for e in comparison.entries if e.answer}
    assert {"Approach 3 (log-huber)", "Approach 3 (mse)", "Approach 2 (IsoFLOP)"} <= set(answers)
    true = LAW.allocate(1e21).n_params
    for entry in answers.values():
        assert entry.answer.n_params == pytest.approx(true, rel=0.3)
    assert 1.0 <= comparison.disagreement["total"] < 1.5


def test_conventions_are_compared_where_runs_record_them(runs):
    small = np.maximum(runs.columns["N"] - 20.0 * np.sqrt(runs.columns["N"]) * 50, 1.0)
    counted = dataclasses.replace(runs, columns={**runs.columns, "n_non_embedding": small})
    comparison = snb.compare(counted, bootstrap=0)
    by = {e.convention: e for e in comparison.entries if e.method == "Approach 3 (mse)"}
    assert set(by) == {"total", "non_embedding"}
    # Leaving embeddings out makes the smallest models look smaller still, and a larger.
    assert by["non_embedding"].exponent_N > by["total"].exponent_N


def test_a_method_that_cannot_answer_is_listed_with_its_reason():
    comparison = snb.compare(snb.simulate(LAW, RandomDesign(n_runs=60), 0.002), bootstrap=0)
    frame = comparison.to_frame().set_index("method")
    assert frame.loc["Approach 2 (IsoFLOP)", "status"] == "failed"
    assert "IsoFLOP slices" in frame.loc["Approach 2 (IsoFLOP)", "message"]
    assert any("IsoFLOP slices" in sentence for sentence in comparison.sentences)


def test_curves_serve_approach_1(runs):
    family = simulate_curves(LAW, np.geomspace(3e7, 3e10, 12), 1e12)
    comparison = snb.compare(runs, curves=family, bootstrap=50)
    entry = next(e for e in comparison.entries if e.method.startswith("Approach 1"))
    assert entry.exponent_N == pytest.approx(LAW.exponent_N, abs=0.03)


def test_the_literature_stands_beside_the_fits(runs):
    comparison = snb.compare(runs, literature=["llama3_2024"], compute=1e22, bootstrap=0)
    entry = comparison.entries[-1]
    assert entry.answer.n_params == snb.published["llama3_2024"].allocate(1e22).n_params
    with pytest.raises(FitError, match="'gpt5'"):
        snb.compare(runs, literature=["gpt5"])


def test_a_comparison_shows_itself(runs):
    comparison = snb.compare(runs, bootstrap=0)
    assert "Approach 2 (IsoFLOP)" in str(comparison)
    assert "<table" in comparison._repr_html_()


def test_what_an_envelope_assumes_is_passed_on():
    grid = GridDesign(n_params=np.geomspace(1e8, 1e10, 8), n_tokens=np.geomspace(1e9, 1e12, 8))
    frame = snb.simulate(LAW, grid, 0.001, 0, trunk_noise=0.001).to_frame()
    told = " ".join(snb.compare(frame, bootstrap=50).sentences)
    assert "do not say by which schedule" in told
    refused = snb.compare(frame.assign(schedule="constant"), bootstrap=50)
    (entry,) = [e for e in refused.entries if e.method == "Approach 1 (envelope)"]
    assert entry.status == "failed"
    assert "middle of their schedule" in " ".join(refused.sentences)


def test_mixed_conventions_are_told(runs):
    names = np.array(["total", "non_embedding"] * len(runs), dtype=object)[: len(runs)]
    plain = {k: v for k, v in runs.columns.items() if k != "n_total"}
    nothing = np.full(len(runs), np.nan)
    mixed = dataclasses.replace(runs, columns={**plain, "n_total": nothing, "convention": names})
    comparison = snb.compare(mixed, bootstrap=0)
    assert {entry.convention for entry in comparison.entries} == {"mixed"}
    assert "different conventions (non_embedding, total)" in " ".join(comparison.sentences)


def test_back_tests_stand_side_by_side(runs):
    frame = snb.compare(runs, bootstrap=20).to_frame().set_index("method")
    assert 0 < frame.loc["Approach 3 (mse)", "backtest_error"] < 0.02
    assert np.isnan(frame.loc["Approach 2 (IsoFLOP)", "backtest_error"])  # three show no floor
    fewer = snb.compare(runs.where(budget=[1e18, 1e19, 1e20]), bootstrap=20).to_frame()
    fewer = fewer.set_index("method")
    assert 0 < fewer.loc["Approach 2 (IsoFLOP)", "backtest_error"] < 0.1
