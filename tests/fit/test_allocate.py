"""Answers to a budget, each against a search by brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from scaling_nb import (
    ChinchillaLaw,
    DataConstrainedLaw,
    KaplanLaw,
    LawFit,
    PowerLaw,
    fit_law,
)
from scaling_nb.errors import FitError
from scaling_nb.fit.allocate import PUBLISHED_REPEATS

LAW = ChinchillaLaw()
TRUE = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}
FIT = LawFit(law=LAW, params=TRUE, status="published")
C = 1e21


@pytest.fixture(scope="module")
def fitted() -> LawFit:
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 9.5, 60), 10 ** rng.uniform(9, 11, 60)
    loss = LAW.predict(TRUE, n, d) * np.exp(0.005 * rng.standard_normal(60))
    return fit_law(pd.DataFrame({"N": n, "D": d, "loss": loss}), bootstrap=200)


def test_a_plain_budget():
    answer = FIT.allocate(C)
    n = answer.n_params * np.geomspace(0.1, 10, 100_001)
    loss = LAW.predict(TRUE, n, C / 6 / n)
    assert answer.loss <= loss.min() * (1 + 1e-12)
    assert answer.n_params * answer.n_tokens * 6 == pytest.approx(C)
    assert answer.tokens_per_param == pytest.approx(answer.n_tokens / answer.n_params)
    assert answer.near_optimal[0] < answer.n_params < answer.near_optimal[1]
    assert answer.intervals == {}
    assert np.isnan(answer.extrapolation)
    assert answer.loss_given_up == 0.0
    assert answer.deadweight_compute == pytest.approx(0.0, abs=1e-6 * C)


def test_intervals_hold_the_answer_and_widen_beyond_the_data(fitted):
    near, far = fitted.allocate(1e20), fitted.allocate(1e25)
    for answer in (near, far):
        for name in ("n_params", "n_tokens", "loss", "tokens_per_param"):
            low, high = answer.intervals[name]
            assert low < getattr(answer, name) < high
    width = [np.log(a.intervals["n_params"][1] / a.intervals["n_params"][0]) for a in (near, far)]
    assert width[1] > 2 * width[0]
    assert far.extrapolation == pytest.approx(1e25 / fitted.scope.C[1])
    assert "extrapolation" in {note.code for note in far.notes}
    assert "extrapolating" in str(far)


def test_a_held_size_says_what_it_costs():
    best = FIT.allocate(C)
    small = FIT.allocate(C, n_params=best.n_params / 5)
    assert small.n_params == best.n_params / 5
    assert small.compute == pytest.approx(C)
    assert small.loss_given_up == pytest.approx(small.loss - best.loss)
    needed = FIT.flops_to_reach(small.loss)
    assert small.deadweight_compute == pytest.approx(C - needed, rel=1e-9)
    assert 0 < needed < C


def test_held_tokens():
    answer = FIT.allocate(C, n_tokens=1e12)
    assert answer.n_tokens == 1e12
    assert answer.n_params == pytest.approx(C / 6e12)


def test_serving_tokens_makes_the_model_smaller_at_equal_loss():
    served = 1e13
    best = FIT.allocate(C)
    answer = FIT.allocate(C, inference_tokens=served)
    assert answer.loss == pytest.approx(best.loss, rel=1e-9)
    assert answer.n_params < best.n_params
    n = np.geomspace(best.n_params / 50, best.n_params, 200_001)
    d = FIT.iso_loss(best.loss, n)
    total = 6 * n * d + 2 * n * served
    assert answer.lifetime_compute <= np.nanmin(total) * (1 + 1e-9)
    assert answer.n_params == pytest.approx(n[np.nanargmin(total)], rel=1e-2)


def test_enough_data_changes_nothing():
    best = FIT.allocate(C)
    answer = FIT.allocate(C, max_tokens=2 * best.n_tokens)
    assert answer.n_params == pytest.approx(best.n_params)
    assert answer.epochs == 1.0


def test_scarce_data_repeat_by_the_data_constrained_law():
    cap = 5e9
    answer = FIT.allocate(C, max_tokens=cap)
    law, params = DataConstrainedLaw(), {**TRUE, **PUBLISHED_REPEATS}
    n = np.geomspace(1e8, 1e12, 200_001)
    loss = law.predict(params, n, C / 6 / n, unique_tokens=np.minimum(cap, C / 6 / n))
    assert answer.loss <= loss.min() * (1 + 1e-9)
    assert answer.n_params == pytest.approx(n[loss.argmin()], rel=1e-2)
    assert answer.epochs == pytest.approx(answer.n_tokens / cap)
    assert answer.loss > FIT.allocate(C).loss
    assert "published_repeats" in {note.code for note in answer.notes}


def test_repeats_can_be_limited():
    answer = FIT.allocate(C, max_tokens=5e9, max_epochs=4)
    assert answer.epochs <= 4 * (1 + 1e-9)
    once = FIT.allocate(C, max_tokens=5e9, max_epochs=1)
    assert once.n_tokens == pytest.approx(5e9)


@pytest.mark.parametrize("epochs", [None, 4])
def test_near_optimal_sizes_know_the_cap(epochs):
    cap = 5e9
    answer = FIT.allocate(C, max_tokens=cap, max_epochs=epochs)
    low, high = answer.near_optimal
    assert low <= answer.n_params <= high
    free = FIT.allocate(C).near_optimal
    assert abs(np.log(high / free[1])) > 0.01
    law, params = DataConstrainedLaw(), {**TRUE, **PUBLISHED_REPEATS}
    n = np.geomspace(low / 1.05, high * 1.05, 2001)
    loss = law.predict(params, n, C / 6 / n, unique_tokens=np.minimum(cap, C / 6 / n))
    inside = loss <= answer.loss * 1.005
    if epochs is not None:
        inside &= C / 6 / n <= epochs * cap * (1 + 1e-9)
    assert n[inside].min() == pytest.approx(low, rel=0.01)
    assert n[inside].max() == pytest.approx(high, rel=0.01)


def test_another_count_of_flop():
    answer = FIT.allocate(C, flops=12.0)
    assert 12 * answer.n_params * answer.n_tokens == pytest.approx(C)
    own = FIT.with_flops(lambda n: 6.0 + 1e4 / np.sqrt(n)).allocate(1e15)
    k = 6.0 + 1e4 / np.sqrt(own.n_params)
    assert k * own.n_params * own.n_tokens == pytest.approx(1e15)


@pytest.mark.parametrize(
    "question",
    [
        {"compute": -1.0},
        {"compute": "1e20"},
        {"compute": None},
        {"compute": C, "max_tokens": "8T"},
        {"compute": C, "inference_tokens": np.nan},
        {"compute": np.inf},
        {"compute": C, "n_params": 1e9, "n_tokens": 1e9},
        {"compute": C, "max_tokens": 1e9, "inference_tokens": 1e9},
        {"compute": C, "inference_tokens": -1.0},
        {"compute": C, "within": 0.0},
        {"compute": C, "max_epochs": 4},
    ],
)
def test_contradictions_are_refused(question):
    with pytest.raises(FitError):
        FIT.allocate(**question)


def test_a_law_of_one_variable_cannot_divide_a_budget():
    fit = LawFit(law=PowerLaw("C"), params={"E": 1.0, "A": 9.0, "alpha": 0.1}, status="published")
    with pytest.raises(FitError, match="Fit ChinchillaLaw"):
        fit.allocate(C)


def test_answers_show_themselves(fitted):
    answer = fitted.allocate(C)
    assert "parameters N" in str(answer)
    assert "90 %" in answer._repr_html_()
    assert "within 0.5 % of best loss" in str(answer)


def test_enough_data_needs_no_law_of_repeats():
    fit = LawFit(
        law=KaplanLaw(),
        params={"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
        status="published",
    )
    assert fit.allocate(C, max_tokens=1e15) == fit.allocate(C)
    with pytest.raises(FitError, match="no form for repeated tokens"):
        fit.allocate(C, max_tokens=1e7)


def test_a_fitted_law_of_repeats_is_used_as_it_is():
    params = {**TRUE, "R_D_star": 60.0, "R_N_star": 3.0}
    fit = LawFit(law=DataConstrainedLaw(), params=params, status="published")
    answer = fit.allocate(C, max_tokens=5e9)
    known = fit.predict(answer.n_params, answer.n_tokens, unique_tokens=5e9)
    assert answer.loss == pytest.approx(known, rel=1e-12)
    poorer = replace(fit, params={**params, "R_D_star": 6.0})
    assert answer.loss < poorer.allocate(C, max_tokens=5e9).loss
    assert answer.notes == ()


def test_the_level_is_shown_as_it_is(fitted):
    narrow = replace(fitted, level=0.5)
    assert np.ptp(narrow.allocate(C).intervals["loss"]) < np.ptp(
        fitted.allocate(C).intervals["loss"]
    )
    assert "50 %" in str(narrow.allocate(C))


@pytest.mark.parametrize("status", ["at_bound", "ill_conditioned", "not_identified"])
def test_an_answer_says_when_its_fit_is_doubtful(status):
    answer = replace(FIT, status=status).allocate(C)
    assert answer.notes[0].code == status
    assert "fit.warnings" in str(answer)
    assert FIT.allocate(C).notes == ()


def test_a_law_without_an_optimum_is_an_error_and_no_numpy_warning():
    flat = replace(FIT, params={**TRUE, "B": 0.0})
    with pytest.raises(FitError, match="no finite optimum"):
        flat.allocate(C)


def test_a_notebook_shows_a_table_with_the_same_words(fitted):
    answer = fitted.allocate(1e25, inference_tokens=1e13)
    shown = answer._repr_html_()
    for label in ("parameters N", "tokens D", "lifetime FLOP", "90 % interval"):
        assert label in shown
    assert f"<td>{answer.n_params:.4g}</td>" in shown
    for line in str(answer).splitlines():
        assert line.startswith(("training", "para", "tokens", "loss", "life")) or (
            line.removeprefix("! ") in shown
        )


laws = st.fixed_dictionaries(
    {
        "E": st.floats(0.0, 3.0),
        "alpha": st.floats(0.1, 0.9),
        "beta": st.floats(0.1, 0.9),
        "at_1e9": st.floats(0.05, 1.0),
        "at_2e10": st.floats(0.05, 1.0),
    }
)


def drawn(law: dict[str, float]) -> LawFit:
    params = {
        "E": law["E"],
        "A": law["at_1e9"] * 1e9 ** law["alpha"],
        "B": law["at_2e10"] * 2e10 ** law["beta"],
        "alpha": law["alpha"],
        "beta": law["beta"],
    }
    return LawFit(law=LAW, params=params, status="published")


@settings(max_examples=60)
@given(law=laws, log_c=st.floats(18, 24), scarcity=st.floats(0.02, 2.0))
def test_a_cap_on_data_is_divided_as_brute_force_does(law, log_c, scarcity):
    fit, compute = drawn(law), 10.0**log_c
    best = fit.allocate(compute)
    cap = scarcity * best.n_tokens
    answer = fit.allocate(compute, max_tokens=cap)
    # Models of a size for which every repeat has long stopped helping are searched too.
    n = best.n_params * np.geomspace(1e-3, 1e4, 40_001)
    d = compute / 6 / n
    params = {**fit.params, **PUBLISHED_REPEATS}
    loss = DataConstrainedLaw().predict(params, n, d, unique_tokens=np.minimum(cap, d))
    assert answer.loss <= loss.min() * (1 + 1e-9)
    assert answer.loss >= best.loss * (1 - 1e-12)
    assert answer.n_params * answer.n_tokens * 6 == pytest.approx(compute, rel=1e-9)


@settings(max_examples=60)
@given(law=laws, log_c=st.floats(18, 24), served=st.floats(0.01, 1000.0))
def test_serving_is_traded_as_brute_force_does(law, log_c, served):
    fit, compute = drawn(law), 10.0**log_c
    best = fit.allocate(compute)
    tokens = served * best.n_tokens
    answer = fit.allocate(compute, inference_tokens=tokens)
    n = best.n_params * np.geomspace(1e-3, 1.5, 40_001)
    d = fit.iso_loss(best.loss, n)
    total = 6 * n * d + 2 * n * tokens
    assert answer.loss == pytest.approx(best.loss, rel=1e-9)
    assert answer.lifetime_compute <= np.nanmin(total) * (1 + 1e-9)
    assert answer.n_params <= best.n_params * (1 + 1e-9)


def test_over_training_says_what_it_gives_up(fitted):
    told = str(fitted.allocate(C, n_params=1e9))
    answer = fitted.allocate(C, n_params=1e9)
    assert f"gives up {answer.loss_given_up:.3g} in loss" in told
    assert f"spends {answer.deadweight_compute:.3g} FLOP" in told
    assert "gives up" in fitted.allocate(C, n_params=1e9)._repr_html_()
    assert "gives up" not in str(fitted.allocate(C))


@pytest.mark.parametrize("served", [1e11, 1e13])
def test_nearly_the_least_lifetime_compute_is_a_range_around_the_answer(fitted, served):
    answer = fitted.allocate(C, inference_tokens=served, within=0.01)
    low, high = answer.near_optimal
    assert low < answer.n_params < high
    assert "of least lifetime FLOP: N from" in str(answer)
    for n in (low, high):
        d = float(fitted.iso_loss(answer.loss, n))
        lifetime = 6 * n * d + 2 * n * served
        assert lifetime == pytest.approx(1.01 * answer.lifetime_compute, rel=1e-3)
