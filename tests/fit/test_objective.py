from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import huber

from scaling_nb.errors import FitError
from scaling_nb.fit.objective import Objective

OBSERVED = np.array([2.0, 3.0, 4.0])


def test_log_huber_is_scipys_huber_of_log_residuals():
    predicted = np.array([[2.001, 3.5, 3.9]])
    r = np.log(OBSERVED) - np.log(predicted)
    value = Objective("log-huber", 1e-3).value(OBSERVED, predicted, np.ones(3))
    assert value[0] == pytest.approx(huber(1e-3, r).sum(), rel=1e-12)


def test_mse_is_the_sum_of_squares_with_weights():
    predicted = np.array([[2.5, 3.0, 3.0]])
    value = Objective("mse").value(OBSERVED, predicted, np.array([2.0, 1.0, 3.0]))
    assert value[0] == pytest.approx(2 * 0.25 + 3 * 1.0)


@settings(max_examples=60)
@given(
    name=st.sampled_from(["log-huber", "mse"]),
    delta=st.sampled_from([1e-3, 1e-2, 1.0]),
    shift=st.floats(-0.5, 0.5),
)
def test_slope_and_bend_are_derivatives(name, delta, shift):
    objective = Objective(name, delta)
    predicted = (OBSERVED * np.exp(shift))[None] * [1.0, 1.0002, 0.997]
    weight = np.array([1.0, 2.0, 0.5])
    h = 1e-6
    # A difference across the kink at |r| = δ is no derivative of either side.
    r = np.abs(np.log(OBSERVED / predicted))
    smooth = np.abs(r - delta) > 1e-5
    terms = objective.terms(OBSERVED, predicted, weight)
    ahead = objective.terms(OBSERVED, predicted + h, weight)
    behind = objective.terms(OBSERVED, predicted - h, weight)
    slope = (ahead.value - behind.value) / (2 * h)
    bend = np.broadcast_to((ahead.slope - behind.slope) / (2 * h), predicted.shape)
    np.testing.assert_allclose(slope[smooth], terms.slope[smooth], rtol=1e-5, atol=1e-9)
    expected = np.broadcast_to(terms.bend, predicted.shape)
    np.testing.assert_allclose(bend[smooth], expected[smooth], rtol=1e-4, atol=1e-6)
    assert np.all(np.asarray(terms.majorant) > 0)
    assert objective.value(OBSERVED, predicted, weight)[0] == pytest.approx(terms.value.sum())


def test_unknown_objectives_are_refused():
    with pytest.raises(FitError):
        Objective("mae")  # type: ignore[arg-type]
    with pytest.raises(FitError):
        Objective("log-huber", -1.0)
