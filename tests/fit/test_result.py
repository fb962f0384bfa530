from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from IPython.lib.pretty import pretty

from scaling_nb import (
    ChinchillaLaw,
    DataConstrainedLaw,
    KaplanLaw,
    LawFit,
    PowerLaw,
    RunTable,
    fit_law,
    published,
)
from scaling_nb.errors import FitError

LAW = ChinchillaLaw()
TRUE = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}


@pytest.fixture(scope="module")
def fit() -> LawFit:
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 9.5, 60), 10 ** rng.uniform(9, 11, 60)
    loss = LAW.predict(TRUE, n, d) * np.exp(0.005 * rng.standard_normal(60))
    loss[3] *= 1.5
    return fit_law(pd.DataFrame({"N": n, "D": d, "loss": loss}), bootstrap=100)


def test_the_promised_attributes(fit):
    assert list(fit.params) == ["E", "A", "B", "alpha", "beta"]
    assert list(fit.intervals) == list(fit.params)
    for name, (low, high) in fit.intervals.items():
        assert low < fit.params[name] < high
    alpha, beta = fit.params["alpha"], fit.params["beta"]
    assert fit.exponent_N == pytest.approx(beta / (alpha + beta))
    assert fit.exponent_N + fit.exponent_D == pytest.approx(1.0)
    low, high = fit.exponent_N_interval
    assert low < fit.exponent_N < high
    assert fit.n_runs == 60
    assert fit.data_hash == fit.runs.data_hash
    assert fit.samples.shape == (100, 5)
    assert set(fit.profile_intervals) == {"E", "exponent_N"}


def test_the_objective_is_the_sum_over_runs(fit):
    size = np.abs(fit.residuals())
    huber = np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 5e-4))
    assert fit.objective_value == pytest.approx(huber.sum(), rel=1e-9)
    squares = fit_law(fit.runs, objective="mse", bootstrap=0)
    rest = fit.runs.L - squares.predict(fit.runs.N, fit.runs.D)
    assert squares.objective_value == pytest.approx(np.sum(rest**2), rel=1e-9)


def test_prediction_is_the_formula(fit):
    p = fit.params
    expected = p["E"] + p["A"] * 1e9 ** -p["alpha"] + p["B"] * 1e10 ** -p["beta"]
    assert fit.predict(1e9, 1e10) == pytest.approx(expected, rel=1e-12)
    assert isinstance(fit.predict(1e9, 1e10), float)
    assert fit.predict([1e8, 1e9], 1e10).shape == (2,)


def test_json_there_and_back(fit, tmp_path):
    path = tmp_path / "fit.json"
    text = fit.to_json(path)
    for source in (text, path, str(path)):
        back = LawFit.from_json(source)
        assert back.params == dict(fit.params)
        assert back.intervals == dict(fit.intervals)
        assert back.warnings == fit.warnings
        assert back.data_hash == fit.data_hash
        assert back.allocate(1e21) == fit.allocate(1e21)
        assert back.to_json() == text
    assert json.loads(text)["data_hash"] == fit.data_hash


@pytest.mark.parametrize("text", ["{", '{"format": 99}'])
def test_json_that_is_no_fit_is_refused(text):
    with pytest.raises(FitError):
        LawFit.from_json(text)


@pytest.mark.parametrize(
    ("law", "params"),
    [
        (PowerLaw("D", irreducible=False), {"A": 9.0, "alpha": 0.1}),
        (KaplanLaw(), {"N_c": 1e13, "D_c": 1e13, "alpha_N": 0.07, "alpha_D": 0.1}),
        (DataConstrainedLaw(), {**TRUE, "R_D_star": 15.0, "R_N_star": 5.0}),
    ],
)
def test_a_published_law_needs_no_data(law, params):
    fit = LawFit(law=law, params=params, status="published", source="a paper, table 1")
    back = LawFit.from_json(fit.to_json())
    assert back.law == law
    assert back.source == "a paper, table 1"
    assert "a paper, table 1" in str(fit)
    assert "published · a paper, table 1<" in fit._repr_html_()
    with pytest.raises(FitError, match="no runs"):
        fit.residuals()


def test_the_fit_shows_itself_with_its_warnings(fit):
    html, text = fit._repr_html_(), str(fit)
    for name in ("alpha", "beta", "robust standard deviations", "None was dropped"):
        assert name in html or name in text
    assert fit.warnings
    assert all(str(note) in text for note in fit.warnings)
    assert "90 %" in text
    assert "60 runs" in repr(fit)
    frame = fit.summary()
    assert list(frame["parameter"]) == ["E", "A", "B", "alpha", "beta", "a"]
    assert np.all(frame["low"] < frame["high"])


def test_the_table_of_budgets(fit):
    frame = fit.chinchilla_table([1e19, 1e20, 1e21])
    assert list(frame["C"]) == pytest.approx([1e19, 1e20, 1e21])
    assert np.all(np.diff(frame["n_params"]) > 0)
    assert np.all(frame["n_params_low"] < frame["n_params_high"])
    markdown = fit.chinchilla_table([1e19, 1e20], format="markdown").splitlines()
    assert len(markdown) == 4
    assert markdown[0].count("|") == markdown[3].count("|") == 8
    assert markdown[0].endswith("| C / largest run | back-test error |")
    assert markdown[3].endswith(f"| {100 * fit.held_out.rmse:.2g} % |")
    assert np.all(frame["backtest_error"] == fit.held_out.rmse)
    latex = fit.chinchilla_table([1e19, 1e20], format="latex")
    assert latex.startswith(r"\begin{tabular}{rrrrrrr}")
    assert r" \% \\" in latex
    assert r"\times 10^{" in latex
    with pytest.raises(FitError, match="markdown"):
        fit.chinchilla_table([1e19], format="html")


def test_the_default_budgets_surround_the_runs(fit):
    budgets = fit.chinchilla_table()["C"]
    assert budgets.iloc[0] >= fit.scope.C[0]
    assert budgets.iloc[-1] > 10 * fit.scope.C[1]


def test_compute_to_reach_a_loss_has_an_interval(fit):
    loss = fit.allocate(1e21).loss
    compute = fit.flops_to_reach(loss)
    assert compute == pytest.approx(1e21, rel=1e-9)
    low, high = fit.flops_to_reach_interval(loss)
    assert low < compute < high
    with pytest.raises(FitError, match="irreducible loss"):
        fit.flops_to_reach(0.5)


def test_a_loss_that_some_resamples_never_reach_is_open_above(fit):
    floor = fit.params["E"]
    _, high = fit.flops_to_reach_interval(floor * 1.0001)
    assert high == np.inf


def test_counted_flop_come_from_the_runs():
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(5, 7, 60), 10 ** rng.uniform(7, 9, 60)
    compute = (6 + 2000 / np.sqrt(n)) * n * d
    frame = pd.DataFrame({"N": n, "D": d, "C": compute, "loss": LAW.predict(TRUE, n, d)})
    fit = fit_law(frame, bootstrap=50)
    assert "compute_differs_from_6nd" in {w.code for w in fit.warnings}
    answer = fit.allocate(1e14, flops="counted")
    k = 6 + 2000 / np.sqrt(answer.n_params)
    assert k * answer.n_params * answer.n_tokens == pytest.approx(1e14, rel=0.02)
    counted = fit.with_flops("counted")
    assert counted.allocate(1e14) == answer
    assert LawFit.from_json(counted.to_json()).allocate(1e14) == answer


def test_optimal_is_allocate_without_the_rest(fit):
    n, d = fit.optimal([1e19, 1e21])
    assert n[1] == pytest.approx(fit.allocate(1e21).n_params)
    assert d[0] == pytest.approx(fit.allocate(1e19).n_tokens)


def test_a_function_cannot_be_written(fit):
    with pytest.raises(FitError, match="cannot be written"):
        fit.with_flops(lambda n: 6.0 + 0.0 * n).to_json()


def test_what_was_left_out_and_why_survives_json():
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 9.5, 30), 10 ** rng.uniform(9, 11, 30)
    frame = pd.DataFrame({"N": n, "D": d, "loss": 1.7 + 400 / n**0.34 + 1500 / d**0.37})
    runs = RunTable.from_frame(frame).exclude(["run-03"], reason="diverged")
    fit = fit_law(runs, bootstrap=0)
    assert fit.excluded == {"run-03": "diverged"}
    assert LawFit.from_json(fit.to_json()).excluded == {"run-03": "diverged"}


def test_the_interval_of_a_prediction_is_that_of_its_resamples(fit):
    rows = fit.samples
    assert fit.predict_interval(1e9, 1e10) == pytest.approx(
        np.quantile([LAW.predict(dict(zip(LAW.param_names, row, strict=True)), 1e9, 1e10)
                     for row in rows], [0.05, 0.95])
    )  # fmt: skip
    low, high = fit.predict_interval([1e9, 1e10], [[1e10], [1e11]])
    assert low.shape == high.shape == (2, 2)
    assert np.all(low < fit.predict([1e9, 1e10], [[1e10], [1e11]]))
    bare = LawFit(law=LAW, params=fit.params, status="published")
    assert np.isnan(bare.predict_interval(1e9, [1e10, 1e11])).all()


@pytest.mark.parametrize("irreducible", [True, False])
def test_a_law_of_compute_says_what_reaches_a_loss(irreducible):
    law = PowerLaw("C", irreducible=irreducible)
    rng = np.random.default_rng(0)
    compute = np.geomspace(1e18, 1e22, 40)
    floor = 1.7 if irreducible else 0.0
    loss = (floor + 40 * compute**-0.08) * np.exp(1e-3 * rng.standard_normal(40))
    frame = pd.DataFrame({"N": np.sqrt(compute / 120), "C": compute, "loss": loss})
    fit = fit_law(frame, law, bootstrap=100)
    reached = fit.flops_to_reach(3.0)
    assert fit.predict(C=reached) == pytest.approx(3.0)
    low, high = fit.flops_to_reach_interval(3.0)
    assert low < reached < high
    if irreducible:
        with pytest.raises(FitError, match="Ask for a loss above it"):
            fit.flops_to_reach(0.5)


def test_a_published_law_passes_its_notes_to_every_answer():
    law = published["kaplan_2020"]
    assert "non_embedding" in " ".join(map(str, law.allocate(1e21).notes))
    assert all(not str(note).endswith(" ") for note in law.warnings)


def test_ipython_shows_the_words_and_not_the_record(fit):
    for shown in (fit, fit.allocate(1e21), published["llama3_2024"]):
        assert pretty(shown) == str(shown)
