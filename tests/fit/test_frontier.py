"""Every closed form against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from scaling_nb import ChinchillaLaw, KaplanLaw
from scaling_nb.fit.compute import SIX_ND, FlopModel
from scaling_nb.fit.frontier import log_tokens_for, near_optimal, optimum, reach, zoom

LAW = ChinchillaLaw()
TRUE = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}
KAPLAN = {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}
GROWING = FlopModel(label="small", constant=6.0, scale=5e3, decay=0.5)
laws = pytest.mark.parametrize(("law", "params"), [(LAW, TRUE), (KaplanLaw(), KAPLAN)])
models = pytest.mark.parametrize("flops", [SIX_ND, FlopModel(constant=8.5), GROWING])

chinchillas = st.fixed_dictionaries(
    {
        "E": st.floats(0.0, 3.0),
        "A": st.floats(1.0, 1e5),
        "B": st.floats(1.0, 1e5),
        "alpha": st.floats(0.05, 1.5),
        "beta": st.floats(0.05, 1.5),
    }
)


def brute(law, params, compute, flops, n):
    loss = law.predict(params, n, flops.tokens(compute, n))
    return float(n[loss.argmin()]), float(loss.min())


@laws
@models
@pytest.mark.parametrize("compute", [1e15, 1e18, 1e24])
def test_the_optimum_is_the_least_loss_on_a_grid(law, params, flops, compute):
    n, d = optimum(law, params, compute, flops)
    assert flops.compute(n, d) == pytest.approx(compute, rel=1e-9)
    best_n, best = brute(law, params, compute, flops, float(n) * np.geomspace(0.01, 100, 200_001))
    assert float(n) == pytest.approx(best_n, rel=1e-3)
    assert float(law.predict(params, n, d)) <= best * (1 + 1e-12)


@settings(max_examples=100)
@given(params=chinchillas, log_c=st.floats(12, 27))
def test_no_neighbour_beats_the_closed_form(params, log_c):
    n, d = optimum(LAW, params, 10**log_c, SIX_ND)
    best = LAW.predict(params, n, d)
    for factor in (0.9, 0.999, 1.001, 1.1):
        assert LAW.predict(params, n * factor, d / factor) >= best * (1 - 1e-14)


@settings(max_examples=50)
@given(params=chinchillas, log_c=st.floats(14, 25))
def test_n_grows_as_a_power_of_compute(params, log_c):
    one, _ = optimum(LAW, params, 10**log_c, SIX_ND)
    ten, _ = optimum(LAW, params, 10 ** (log_c + 1), SIX_ND)
    a = params["beta"] / (params["alpha"] + params["beta"])
    assert np.log10(ten / one) == pytest.approx(a, rel=1e-9)


@laws
@models
def test_reach_undoes_the_optimum(law, params, flops):
    n, d = optimum(law, params, 1e21, flops)
    loss = law.predict(params, n, d)
    back_n, back_d = reach(law, params, loss, flops)
    assert float(flops.compute(back_n, back_d)) == pytest.approx(1e21, rel=1e-6)


def test_no_compute_reaches_the_irreducible_loss():
    n, d = reach(LAW, TRUE, TRUE["E"] - 0.1, SIX_ND)
    assert not np.isfinite(n * d)


def test_iso_loss_tokens_give_the_loss():
    n = np.geomspace(1e7, 1e11, 7)
    front = LAW.frontier(TRUE)
    d = np.exp(log_tokens_for(front, np.log(2.5 - TRUE["E"]), np.log(n)))
    known = np.isfinite(d)
    assert known.any()
    np.testing.assert_allclose(LAW.predict(TRUE, n[known], d[known]), 2.5, rtol=1e-12)
    assert not known[0]  # a model of 1e7 never reaches 2.5


@models
def test_the_near_optimal_range_ends_where_the_loss_is_up_by_the_share(flops):
    n, d = optimum(LAW, TRUE, 1e21, flops)
    best = float(LAW.predict(TRUE, n, d))
    for edge in near_optimal(LAW, TRUE, 1e21, 0.005, flops):
        loss = LAW.predict(TRUE, edge, flops.tokens(1e21, edge))
        assert loss == pytest.approx(1.005 * best, rel=1e-9)


def test_zoom_minimises_every_row():
    middle = np.array([-3.0, 0.5, 4.0])
    found = zoom(lambda x: (x - middle[:, None]) ** 2, middle - 5.0, middle + 7.0)
    np.testing.assert_allclose(found, middle, atol=1e-7)
