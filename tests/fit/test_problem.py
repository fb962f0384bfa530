"""Linear coordinates refitted along a batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st
from scipy.optimize import nnls

from scaling_nb.fit.problem import coefficients, coefficients_of


@given(seed=st.integers(0, 10_000), size=st.integers(1, 3))
def test_coefficients_are_those_of_non_negative_least_squares(seed, size):
    rng = np.random.default_rng(seed)
    basis, y = rng.standard_normal((4, size, 12)), rng.standard_normal((4, 12))
    gram, moment = basis @ basis.swapaxes(1, 2), (basis @ y[:, :, None])[:, :, 0]
    expected = np.stack([nnls(b.T, v)[0] for b, v in zip(basis, y, strict=True)])
    np.testing.assert_allclose(coefficients(gram, moment), expected, atol=1e-9)
    # And where it is known which of them are positive.
    known = coefficients_of(expected > 0.0, gram, moment)
    np.testing.assert_allclose(known, expected, rtol=1e-6, atol=1e-9)


def test_a_column_that_would_be_negative_is_left_out():
    basis = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    y = np.array([2.0, -1.0, 0.5])
    found = coefficients_of(np.full((1, 2), True), (basis @ basis.T)[None], (basis @ y)[None])
    free = np.linalg.lstsq(basis.T, y)[0]
    np.testing.assert_allclose(found[0], np.maximum(free, 0.0), rtol=1e-6)
    assert found[0, 1] == 0.0 > free[1]


def test_a_column_twice_is_no_error():
    row = np.linspace(1.0, 2.0, 9)
    basis = np.stack([row, row])
    found = coefficients_of(np.full((1, 2), True), (basis @ basis.T)[None], (basis @ row)[None])
    np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-6)
