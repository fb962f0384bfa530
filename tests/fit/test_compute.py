from __future__ import annotations

import numpy as np
import pytest

from scaling_nb.errors import FitError
from scaling_nb.fit.compute import SIX_ND, FlopModel, as_flops, learn_flops

N = np.geomspace(1e5, 1e7, 8)
D = np.full(8, 1e8)


def test_six_nd_is_six_nd():
    assert SIX_ND.compute(1e9, 2e10) == 1.2e20
    assert SIX_ND.tokens(1.2e20, 1e9) == 2e10


def test_a_constant_is_recognised():
    model = learn_flops(N, D, 7.3 * N * D)
    assert model.is_constant
    assert model.constant == pytest.approx(7.3)


def test_attention_at_fixed_depth_is_learned_and_tends_to_six():
    count = (6.0 + 900.0 / np.sqrt(N)) * N * D
    model = learn_flops(N, D, count)
    np.testing.assert_allclose(model.compute(N, D), count, rtol=0.02)
    assert model.per_param_token(1e14) == pytest.approx(6.0, rel=1e-2)


def test_a_sample_of_many_patches_has_its_own_constant():
    count = (300.0 + 4e4 / np.sqrt(N)) * N * D
    model = learn_flops(N, D, count)
    np.testing.assert_allclose(model.compute(N, D), count, rtol=0.02)
    assert model.per_param_token(1e14) == pytest.approx(300.0, rel=0.05)


def test_runs_without_c_teach_nothing():
    with pytest.raises(FitError, match="6ND"):
        learn_flops(N, D, np.full(8, np.nan))


def test_names_numbers_and_functions():
    assert as_flops("6ND") is SIX_ND
    assert as_flops(8.0).constant == 8.0
    assert as_flops(lambda n: 6.0 + 1e3 / n).per_param_token(1e3) == 7.0
    model = FlopModel(constant=9.0)
    assert as_flops(model) is model
    assert as_flops("counted", lambda: model) is model


@pytest.mark.parametrize("value", ["7ND", -1.0, 0.0])
def test_nonsense_is_refused(value):
    with pytest.raises(FitError):
        as_flops(value)


def test_counted_needs_runs():
    with pytest.raises(FitError, match="no runs"):
        as_flops("counted")


def test_flop_per_token_are_not_flop_per_parameter_and_token():
    with pytest.raises(FitError, match="divide FLOP per token by N"):
        as_flops(lambda n: 6 * n + 1e6)
