"""A term that is zero comes back at the exponent that serves a resample best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from noisy_runs import problem

from scaling_nb.fit import plateau
from scaling_nb.fit.bootstrap import multiplicities, refit
from scaling_nb.fit.newton import minimise
from scaling_nb.fit.plateau import _POINTS, begin, inert_at
from scaling_nb.fit.problem import lattice, project, trust_at, values
from scaling_nb.laws import Constraints

HELD = [Constraints(), Constraints(fixed={"E": 1.6}), Constraints(shared=("alpha", "beta"))]


def without(made, start, weight, *terms):
    """Return the minimum with terms of zero, A at 1 and B at 2, at the flattest exponent."""
    gone = np.zeros(len(start), dtype=bool)
    z = start.copy()
    for term in terms:
        gone[[term, term + 2]] = True
        z[term], z[term + 2] = 0.0, made.lower[term + 2]
    return minimise(made, z[None], weight, frozen=gone).z[0]


@pytest.mark.parametrize("terms", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("objective", ["log-huber", "mse"])
def test_a_resample_begins_at_the_best_of_all_exponents(objective, terms):
    made, starts, weight = problem(objective)
    start = without(made, starts[0], weight, *terms)
    inert = inert_at(made, start)
    assert inert.tolist() == [term + 2 for term in terms]
    drawn = multiplicities(len(weight), None, 5, np.random.RandomState(0))
    begun = begin(made, start, drawn)
    tried = lattice((0.005,) * len(inert), (3.0,) * len(inert), _POINTS)
    for z, w in zip(begun, drawn, strict=True):
        points = np.tile(start, (len(tried), 1))
        points[:, inert] = tried
        trust = w * trust_at(made, start[None], np.ones(len(w)))[0]
        fitted = project(made, points, trust, made.linear)
        left = ((made.observed - made.surface.loss(made.theta(fitted))) ** 2) @ trust
        assert z[inert] == pytest.approx(tried[left.argmin()])
        np.testing.assert_allclose(z, fitted[left.argmin()], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("constraints", HELD)
@pytest.mark.parametrize("objective", ["log-huber", "mse"])
def test_where_no_term_is_zero_nothing_is_moved(objective, constraints):
    made, starts, weight = problem(objective, constraints=constraints)
    assert not len(inert_at(made, starts[0]))
    np.testing.assert_array_equal(begin(made, starts[0], np.tile(weight, (3, 1)))[1], starts[0])


def test_a_shared_exponent_is_inert_only_without_both_terms():
    made, starts, weight = problem("mse", constraints=HELD[2])
    z = starts[0].copy()
    z[1] = 0.0
    assert not len(inert_at(made, z))
    z[2] = 0.0
    assert inert_at(made, z).tolist() == [3]
    begun = begin(made, z, weight[None])[0]
    assert (begun[1:3] > 0.0).all()


def test_a_resample_that_has_no_use_for_the_term_stays():
    made, starts, weight = problem("mse")
    sizes = made.surface.x[0]
    rising = replace(made, observed=made.observed + sizes - sizes.min())
    start = without(rising, starts[0], weight, 1)
    np.testing.assert_allclose(begin(rising, start, weight[None])[0], start, rtol=1e-6)


def test_resamples_that_begin_without_a_term_find_it():
    made, starts, weight = problem("mse", n=80)
    best = minimise(made, starts[:1], weight).z[0]
    drawn = multiplicities(len(weight), None, 50, np.random.RandomState(1))
    from_best = refit(made, best[None], drawn)
    from_none = refit(made, without(made, best, weight, 1)[None], drawn)
    np.testing.assert_allclose(from_none[1], from_best[1], rtol=1e-5)
    assert (values(made, from_none[0], drawn) <= from_best[1] * (1 + 1e-5)).all()


def test_a_resample_without_runs_stays_where_it_started():
    made, starts, weight = problem("mse")
    start = without(made, starts[0], weight, 1)
    begun = begin(made, start, np.stack([weight, 0 * weight]))
    assert (begun[0] != start).any()
    np.testing.assert_array_equal(begun[1], start)


def test_many_runs_are_taken_a_few_points_at_a_time(monkeypatch):
    made, starts, weight = problem("mse")
    start = without(made, starts[0], weight, 1, 2)
    drawn = multiplicities(len(weight), None, 5, np.random.RandomState(0))
    whole = begin(made, start, drawn)
    monkeypatch.setattr(plateau, "_CHUNK", 40 * 12 * 7)
    np.testing.assert_allclose(begin(made, start, drawn), whole, rtol=1e-9)
