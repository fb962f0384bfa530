from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import nnls

from scaling_nb.laws import ChinchillaLaw, Constraints, PowerLaw
from scaling_nb.laws.least_squares import non_negative
from scaling_nb.laws.power_sum import local_minima


def design(seed: int, n: int = 30) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"N": 10 ** rng.uniform(7, 10, n), "D": 10 ** rng.uniform(9, 11, n)}


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 3))
def test_non_negative_least_squares_by_cases_agrees_with_scipy(seed, size):
    rng = np.random.default_rng(seed)
    basis, y = rng.standard_normal((12, size)), rng.standard_normal(12)
    found = non_negative((basis.T @ basis)[:, :, None], (basis.T @ y)[:, None], [None] * size)
    expected, rest = nnls(basis, y)
    np.testing.assert_allclose(found.coefficients()[0], expected, atol=1e-10)
    assert found.cost[0] + y @ y == pytest.approx(rest**2, abs=1e-9)


def test_held_coefficients_stay():
    rng = np.random.default_rng(3)
    basis = np.abs(rng.standard_normal((20, 3)))
    y = basis @ [1.0, 2.0, 3.0]
    held = [None, 2.0, None]
    found = non_negative((basis.T @ basis)[:, :, None], (basis.T @ y)[:, None], held)
    np.testing.assert_allclose(found.coefficients()[0], [1.0, 2.0, 3.0], rtol=1e-9)


def testlocal_minima_come_lowest_first_and_edges_count():
    cost = np.array([[3.0, 9.0, 1.0], [9.0, 9.0, 9.0], [2.0, 9.0, 9.5]])
    rows, columns = local_minima(cost)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 2), (2, 0), (0, 0)]


def test_fixed_and_shared_exponents_restrict_the_grid():
    law, inputs = ChinchillaLaw(), design(1)
    params = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.34}
    loss = law.loss(params, inputs)
    tied = Constraints(shared=("alpha", "beta"))
    starts = law.surface(inputs, tied).starts(loss, np.ones(30), tied)
    np.testing.assert_array_equal(starts[:, 3], starts[:, 4])
    held = Constraints(fixed={"alpha": 0.34, "beta": 0.34})
    exact = law.surface(inputs, held)
    start = exact.starts(loss, np.ones(30), held)
    np.testing.assert_allclose(exact.to_params(start)[0], list(params.values()), rtol=1e-6)


def test_a_fixed_scale_is_not_centred():
    law, inputs = ChinchillaLaw(), design(2)
    surface = law.surface(inputs, Constraints(fixed={"A": 400.0}))
    theta = surface.to_theta(np.array([[1.7, 400.0, 1500.0, 0.34, 0.37]]))
    assert theta[0, 1] == 400.0
    assert theta[0, 2] < 10.0


def test_one_term_without_a_floor():
    law = PowerLaw("N", irreducible=False)
    inputs = {"N": design(4)["N"]}
    loss = law.loss({"A": 12.0, "alpha": 0.08}, inputs)
    surface = law.surface(inputs)
    best = surface.to_params(surface.starts(loss, np.ones(30), Constraints()))[0]
    assert best[1] == pytest.approx(0.08, rel=0.1)
