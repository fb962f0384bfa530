from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling_nb import ChinchillaLaw, fit_law
from scaling_nb.fit.objective import Objective
from scaling_nb.fit.profile import noise_unit, profile, profile_coordinate, profile_exponent
from scaling_nb.fit.search import solve
from scaling_nb.laws import Constraints, KaplanLaw

LAW = ChinchillaLaw()
TRUE = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}


@pytest.fixture(scope="module", params=["log-huber", "mse"])
def found(request):
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 9.5, 80), 10 ** rng.uniform(9, 11, 80)
    loss = LAW.predict(TRUE, n, d) * np.exp(0.005 * rng.standard_normal(80))
    frame = pd.DataFrame({"N": n, "D": d, "loss": loss})
    optimum = solve(
        LAW, {"N": n, "D": d}, loss, Objective(request.param),
        constraints=Constraints(), weight=np.ones(80),
    )  # fmt: skip
    predicted = optimum.problem.surface.loss(optimum.problem.theta(optimum.z[:1]))[0]
    unit = noise_unit(optimum.problem.objective, loss, predicted, np.ones(80), 5)
    return frame, optimum, unit, request.param


def test_a_profile_point_is_a_fit_with_that_value_held(found):
    frame, optimum, _, objective = found
    values = np.array([1.5, 1.65, 1.75])
    cost = profile_coordinate(optimum.problem, optimum.z[0], np.ones(80), 0, values)
    for value, expected in zip(values, cost, strict=True):
        held = fit_law(frame, objective=objective, fixed={"E": value}, bootstrap=0)
        assert held.objective_value == pytest.approx(expected, rel=1e-7)


def test_the_interval_ends_where_the_rise_is_critical(found):
    _, optimum, unit, _ = found
    view = profile(optimum.problem, optimum.z[0], np.ones(80), "E", 0, unit)
    low, high = view.interval
    assert low < optimum.z[0, 0] < high
    edges = profile_coordinate(optimum.problem, optimum.z[0], np.ones(80), 0, np.array([low, high]))
    rise = (edges - optimum.value[0]) / unit
    np.testing.assert_allclose(rise, 2.7055, rtol=0.1)


def test_the_exponent_has_a_profile_too(found):
    frame, optimum, unit, objective = found
    view = profile_exponent(optimum.problem, optimum.z[0], np.ones(80), 3, 4, unit)
    low, high = view.interval
    a = optimum.params[4] / (optimum.params[3] + optimum.params[4])
    assert 0 < low < a < high < 1
    assert view.rise.min() == 0.0
    fit = fit_law(frame, objective=objective, bootstrap=300)
    assert fit.profile_intervals["exponent_N"] == pytest.approx((low, high), rel=1e-6)
    bootstrap = np.ptp(fit.exponent_N_interval)
    assert 0.5 * bootstrap < high - low < 2.0 * bootstrap


def test_squares_count_in_units_of_the_residual_variance():
    rng = np.random.default_rng(1)
    observed, r = np.full(1000, 3.0), 0.1 * rng.standard_normal(1000)
    unit = noise_unit(Objective("mse"), observed, observed - r, np.ones(1000), 5)
    assert unit == pytest.approx(0.01, rel=0.1)


def test_a_wide_huber_counts_as_squares_do():
    rng = np.random.default_rng(1)
    observed = np.full(1000, 3.0)
    predicted = observed * np.exp(-0.1 * rng.standard_normal(1000))
    unit = noise_unit(Objective("log-huber", 10.0), observed, predicted, np.ones(1000), 5)
    assert unit == pytest.approx(0.5 * 0.01, rel=0.1)


def test_kaplans_exponent_has_a_profile():
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(6, 9, 60), 10 ** rng.uniform(8, 11, 60)
    true = {"N_c": 8.8e13, "D_c": 5.4e13, "alpha_N": 0.076, "alpha_D": 0.095}
    loss = KaplanLaw().predict(true, n, d) * np.exp(0.003 * rng.standard_normal(60))
    fit = fit_law(pd.DataFrame({"N": n, "D": d, "loss": loss}), KaplanLaw(), bootstrap=100)
    low, high = fit.profile_intervals["exponent_N"]
    assert low < fit.exponent_N == 1 / (1 + fit.params["alpha_N"] / fit.params["alpha_D"]) < high
    assert low < 0.095 / (0.076 + 0.095) < high
