from __future__ import annotations

import numpy as np
import pytest
from referee import needs_referee, reference, table

from scaling_nb import fit_law
from scaling_nb.laws import ChinchillaLaw, DataConstrainedLaw
from scaling_nb.laws.data_constrained import _saturating

PARAMS = {
    "E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.35, "beta": 0.36,
    "R_D_star": 15.4, "R_N_star": 5.3,
}  # fmt: skip


def test_without_repeats_and_excess_it_is_the_chinchilla_law():
    n, d = np.array([1e8, 1e9]), np.array([1e11, 1e12])
    base = {name: PARAMS[name] for name in ("E", "A", "B", "alpha", "beta")}
    np.testing.assert_allclose(
        DataConstrainedLaw().predict(PARAMS, n, d), ChinchillaLaw().predict(base, n, d), rtol=1e-12
    )


def test_four_epochs_are_worth_nearly_as_much_as_new_data_and_forty_are_not():
    law = DataConstrainedLaw()
    _, few = law.effective(PARAMS, {"N": 1e8, "D": 4e10, "unique_tokens": 1e10})
    _, many = law.effective(PARAMS, {"N": 1e8, "D": 4e11, "unique_tokens": 1e10})
    assert few / 4e10 > 0.9
    assert many / 4e11 < 0.45


def test_worth_never_exceeds_one_plus_r_star():
    _, worth = DataConstrainedLaw().effective(PARAMS, {"N": 1e8, "D": 1e20, "unique_tokens": 1e10})
    assert worth == pytest.approx(1e10 * 16.4)


def test_expm1_keeps_the_digits_that_the_plain_form_loses():
    repeats, star = 2.3, 1e15
    plain = 1.0 + star - star * np.exp(-repeats / star)
    assert _saturating(repeats, star) == pytest.approx(3.3, rel=1e-14)
    assert abs(plain - 3.3) > 1e-3


@needs_referee
def test_the_published_pair_of_repeat_constants_is_a_local_minimum_we_go_below():
    known = reference()["_meta"]["data_constrained_182"]
    held = {
        "E": np.exp(known["fixed"]["e"]),
        "A": np.exp(known["fixed"]["a"]),
        "B": np.exp(known["fixed"]["b"]),
        "alpha": known["fixed"]["alpha"],
        "beta": known["fixed"]["beta"],
    }
    fit = fit_law(table("datablations_182"), DataConstrainedLaw(), bootstrap=0, fixed=held)
    assert fit.objective_value <= known["reference"]["objective"] * (1 + 1e-9)
    assert fit.objective_value < known["published"]["objective"]
    assert fit.params["R_D_star"] == pytest.approx(known["reference"]["RD_star"], rel=1e-4)
    assert fit.params["R_N_star"] == pytest.approx(known["reference"]["RN_star"], rel=1e-4)
    assert fit.status != "converged"
