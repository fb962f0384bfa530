from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from referee import needs_referee, reference, table

from scaling_nb.budgets import infer_budgets


def test_slices_are_found_through_noise_in_compute():
    rng = np.random.default_rng(0)
    n = np.tile(np.geomspace(1e7, 1e9, 7), 4)
    true = np.repeat([1e18, 3e18, 1e19, 1e20], 7)
    found = infer_budgets(n, true * np.exp(rng.uniform(-0.05, 0.05, len(n))))
    np.testing.assert_allclose(found, true, rtol=0.06)
    assert len(np.unique(found)) == 4


def test_a_random_design_has_no_slices():
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 10, 100), 10 ** rng.uniform(9, 12, 100)
    assert np.isnan(infer_budgets(n, 6 * n * d)).all()


def test_repeats_of_one_size_are_no_slice():
    assert np.isnan(infer_budgets(np.full(6, 1e8), np.full(6, 1e18))).all()


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_the_unit_of_compute_does_not_matter(unit):
    n = np.tile(np.geomspace(1e7, 1e9, 5), 3)
    compute = np.repeat([1e18, 1e19, 1e20], 5) * np.tile([1.0, 1.01, 0.99, 1.02, 1.0], 3)
    found = infer_budgets(n, compute * unit)
    assert [len(set(part)) for part in np.split(found, 3)] == [1, 1, 1]


@needs_referee
@pytest.mark.parametrize(
    "name", [k for k, v in reference().items() if k != "_meta" and not k.startswith("marin")]
)
def test_published_slices_are_found_and_none_are_made_up(name):
    runs = table(name)
    true = runs.column("budget").astype(float)
    found = infer_budgets(runs.N, runs.C)
    if not np.isfinite(true).any():
        assert np.isnan(found).all()
        return
    both = np.isfinite(true) & np.isfinite(found)
    assert both.mean() > 0.95
    assert len(np.unique(found[both])) == len(np.unique(true[both]))
