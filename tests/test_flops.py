from __future__ import annotations

import pytest

from scaling_nb import PlanError
from scaling_nb.flops import (
    CONVENTIONS,
    ParamCounts,
    check_convention,
    six_nd,
    transformer_flops_per_token,
)


def test_six_nd():
    assert six_nd(70e9, 1.4e12) == pytest.approx(5.88e23)


def test_a_transformer_pays_for_attention_too():
    assert transformer_flops_per_token(matmul_params=2312, n_layers=2, context=64, width=8) == 26160


def test_conventions_have_names():
    counts = ParamCounts(total=10, non_embedding=7, matmul=5)
    assert [counts.get(name) for name in CONVENTIONS] == [10, 7, 5]
    with pytest.raises(PlanError, match="convention 'heads' is unknown. It must be one of 'total'"):
        check_convention("heads")
