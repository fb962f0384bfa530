from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from scaling_nb.training.schedules import SCHEDULES, cooldown_start, lr_factor

lengths = st.integers(1, 3000)
warmups = st.integers(0, 200)


@given(n=lengths, warmup=warmups, name=st.sampled_from(SCHEDULES))
def test_every_schedule_peaks_once_and_never_reaches_zero(n, warmup, name):
    rates = [lr_factor(name, step, n, warmup) for step in range(n)]
    assert all(0 < rate <= 1 for rate in rates)
    if n > 1:
        assert max(rates) > 0.9
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@given(short=st.integers(60, 2000), more=st.integers(0, 2000))
def test_a_trunk_does_not_depend_on_the_length(short, more):
    start = cooldown_start(short)
    trunk = [lr_factor("wsd", step, short, 40) for step in range(start)]
    assert trunk == [lr_factor("wsd", step, short + more, 40) for step in range(start)]


def test_the_cooldown_is_one_minus_a_square_root():
    n = 100
    rates = [lr_factor("wsd", step, n, 10) for step in range(n)]
    assert cooldown_start(n) == 80
    assert rates[9] == rates[79] == 1.0
    assert rates[80] == pytest.approx(1 - (1 / 21) ** 0.5)
    assert rates[99] == pytest.approx(1 - (20 / 21) ** 0.5)


def test_a_cosine_ends_at_a_tenth():
    assert lr_factor("cosine", 999, 1000, 10) == pytest.approx(0.1)
    assert lr_factor("cosine", 504, 1000, 10) == pytest.approx(0.55, abs=0.01)
