from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from scaling_nb.fit.trend import fit_loss_trend, fit_trend, interval

LOG_C = np.log([1e18, 1e19, 1e20, 1e21, 1e22])


@given(
    exponent=st.floats(min_value=-1.0, max_value=1.0),
    coefficient=st.floats(min_value=1e-3, max_value=1e3),
)
def test_a_power_law_is_recovered(exponent, coefficient):
    log_y = np.log(coefficient) + exponent * LOG_C
    trend = fit_trend(LOG_C[None], log_y[None], np.ones((1, 5), bool), 0.9)
    assert trend.exponent == pytest.approx(exponent, abs=1e-9)
    assert trend.coefficient == pytest.approx(coefficient, rel=1e-6)
    assert trend.at(1e24) == pytest.approx(coefficient * 1e24**exponent, rel=1e-6)


@pytest.mark.parametrize(("floor", "gamma"), [(1.7, 0.15), (0.0, 0.05), (2.5, 0.6)])
def test_an_irreducible_loss_is_recovered(floor, gamma):
    loss = floor + 1.3 * np.exp(-gamma * (LOG_C - LOG_C.mean()))
    trend = fit_loss_trend(LOG_C[None], loss[None], np.ones((1, 5), bool), 0.9)
    assert trend.floor == pytest.approx(floor, abs=2e-3)
    assert -trend.exponent == pytest.approx(gamma, rel=2e-3)
    np.testing.assert_allclose(trend.at(np.exp(LOG_C)), loss, rtol=1e-5)


def test_the_floor_is_never_negative():
    loss = np.log(1e30) - LOG_C  # bends downward in ln C: the best floor would be below zero
    trend = fit_loss_trend(LOG_C[None], loss[None], np.ones((1, 5), bool), 0.9)
    assert trend.floor < 0.05


def test_three_budgets_get_no_floor():
    loss = 1.7 + np.exp(-0.1 * (LOG_C[:3] - LOG_C[0]))
    trend = fit_loss_trend(LOG_C[None, :3], loss[None], np.ones((1, 3), bool), 0.9)
    assert trend.floor == 0.0


def test_rows_with_fewer_than_two_optima_are_left_out():
    log_y = np.tile(0.5 * LOG_C, (3, 1))
    valid = np.array([[True] * 5, [True, False, False, False, False], [True, True] + [False] * 3])
    trend = fit_trend(np.tile(LOG_C, (3, 1)), log_y, valid, 0.9)
    assert trend.samples.shape == (1, 3)
    assert trend.samples[0, 2] == pytest.approx(0.5)


def test_each_row_is_fitted_to_its_own_optima():
    rng = np.random.default_rng(0)
    log_y = 0.5 * LOG_C + rng.normal(size=(50, 5))
    valid = rng.random((50, 5)) < 0.8
    valid[:, :2] = True
    trend = fit_trend(np.tile(LOG_C, (50, 1)), log_y, valid, 0.9)
    for row, mask, y in zip(trend.samples, valid[1:], log_y[1:], strict=True):
        assert row[2] == pytest.approx(np.polyfit(LOG_C[mask], y[mask], 1)[0], rel=1e-9)


def test_infinite_samples_make_an_open_interval():
    low, high = interval(np.r_[np.arange(90.0), np.full(10, np.inf)], 0.9)
    assert np.isfinite(low)
    assert high == np.inf
    assert np.isnan(interval(np.empty((0,)), 0.9)).all()
