"""One start alone ends where a batch of one does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from noisy_runs import LAW, problem

from scaling_nb.fit import descent
from scaling_nb.fit.boxed_step import damped_step
from scaling_nb.fit.descent import Point, Trails, descend, refine
from scaling_nb.fit.detour import relax, stiffen
from scaling_nb.fit.newton import minimise
from scaling_nb.fit.objective import Objective
from scaling_nb.fit.problem import evaluate, make_problem
from scaling_nb.laws import Constraints, KaplanLaw

HELD = [Constraints(), Constraints(fixed={"E": 1.6}), Constraints(shared=("alpha", "beta"))]


@pytest.mark.parametrize("constraints", HELD)
@pytest.mark.parametrize("objective", ["log-huber", "mse"])
def test_a_point_has_the_matrices_of_a_batch_of_one(objective, constraints):
    made, start, weight = problem(objective, constraints=constraints)
    value, gradient, hessian, gauss = evaluate(made, start[:1], weight)
    here = Point(made, start[0], weight)
    assert here.value == pytest.approx(value[0], rel=1e-12)
    np.testing.assert_allclose(here.gradient, gradient[0], rtol=1e-10)
    for lam in (0.0, 0.3, 1.0, 1.5):
        share = min(lam, 1.0)
        expected = (1.0 - share) * hessian[0] + share * gauss[0]
        expected = expected + max(lam - 1.0, 0.0) * np.diag(np.diag(gauss[0]))
        np.testing.assert_allclose(here.matrix(lam), expected, rtol=1e-9, atol=1e-12)


@given(
    seed=st.integers(0, 10_000),
    floor=st.sampled_from([0.0, 0.3, 1.7]),
    objective=st.sampled_from(["log-huber", "mse"]),
    held=st.sampled_from(HELD),
)
def test_a_start_alone_ends_where_a_batch_of_one_does(seed, floor, objective, held):
    made, start, weight = problem(objective, seed=seed, n=20, floor=floor, constraints=held)
    batch = minimise(made, start[:1], weight)
    end, converged = descend(made, start[0], weight)
    assert converged == batch.converged[0]
    # Where they part ways, at a step that one calls better by rounding, both end in a minimum.
    if np.allclose(end.z, batch.z[0], rtol=1e-3, atol=1e-4):
        assert end.value == pytest.approx(batch.value[0], rel=1e-9, abs=1e-20)
    assert (end.z >= made.lower).all()
    assert (end.z <= made.upper).all()


def test_a_start_near_a_known_minimum_is_given_up_for_it():
    made, start, weight = problem()
    trails = Trails(made)
    end, _ = descend(made, start[0], weight, trails=trails)
    assert trails.close(end, converged=True)
    again, converged = descend(made, end.z * 1.2, weight, trails=trails)
    assert again is end
    assert converged
    assert not trails.close(again, converged=True)
    assert len(refine(made, np.stack([start[0], end.z * 1.2, end.z * 0.9]), weight).z) == 1


def test_a_start_that_comes_by_where_another_passed_ends_where_that_did():
    made, start, weight = problem()
    trails, far = Trails(made), Point(made, start[0] * 1.3, weight)
    assert trails.meet(far) is None
    end, _ = descend(made, start[0], weight, trails=trails)
    trails.close(end, converged=True)
    assert trails.meet(Point(made, far.z * 0.995, weight)) is end
    assert trails.meet(Point(made, far.z * 0.95, weight)) is None
    # As near, but too high to come from there.
    lower = Point(made, far.z, weight)
    lower.value *= 0.5
    other = Trails(made)
    other.meet(lower)
    other.close(end, converged=True)
    assert other.meet(far) is None


def test_nobody_is_led_to_an_end_that_lies_higher_or_has_not_converged():
    made, start, weight = problem()
    near = Point(made, start[0], weight)
    for change, converged in ((1.5, True), (0.9, False)):
        trails = Trails(made)
        trails.meet(near)
        end = Point(made, start[0] * 1.2, weight)
        end.value = near.value * change
        assert trails.close(end, converged=converged)
        assert trails.meet(near) is None


def test_where_nothing_is_linear_only_ends_are_met():
    law, rng = KaplanLaw(), np.random.default_rng(0)
    inputs = {"N": 10 ** rng.uniform(7, 10, 40), "D": 10 ** rng.uniform(9, 11, 40)}
    true = {"N_c": 8.8e13, "D_c": 5.4e13, "alpha_N": 0.076, "alpha_D": 0.095}
    loss = law.loss(true, inputs) * np.exp(0.01 * rng.standard_normal(40))
    surface = law.surface(inputs)
    made = make_problem(surface, law.param_names, loss, Objective(), Constraints())
    far, weight = made.free(surface.starts(loss, np.ones(40), Constraints()))[0], np.ones(40)
    trails = Trails(made)
    end, converged = descend(made, far, weight, trails=trails)
    trails.close(end, converged=converged)
    assert trails.meet(Point(made, far, weight)) is None
    assert trails.meet(Point(made, end.z * (1 + 1e-8), weight)) is end


def test_bounds_are_met_and_left_again():
    made, start, weight = problem("mse")
    middle, _ = descend(made, start[0], weight)
    lower = made.lower.copy()
    lower[3] = middle.z[3] * 1.05  # alpha may not be as small as it wants
    held, converged = descend(replace(made, lower=lower), start[0], weight)
    assert converged
    assert held.z[3] == lower[3]
    assert held.value > middle.value
    free, _ = descend(made, held.z, weight)
    np.testing.assert_allclose(free.z, middle.z, rtol=1e-6)


def test_where_one_start_passes_through_all_runs_the_others_are_left_out():
    made, start, weight = problem()
    exact = replace(made, observed=made.surface.loss(made.theta(start[:1]))[0])
    assert len(refine(exact, np.stack([start[0], start[0] * 1.5]), weight).z) == 1


def test_nothing_to_move_is_a_minimum():
    everything = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}
    made, start, weight = problem(constraints=Constraints(fixed=everything))
    end, converged = descend(made, start[0], weight)
    assert converged
    assert end.z.shape == (0,)
    assert set(LAW.param_names) == set(everything)


def test_many_runs_are_refined_as_a_batch(monkeypatch):
    monkeypatch.setattr(descent, "_MOST_RUNS", 10)
    made, start, weight = problem()
    batch, alone = refine(made, start[:1], weight), descend(made, start[0], weight)[0]
    np.testing.assert_allclose(batch.z[0], alone.z, rtol=1e-6)


@pytest.mark.parametrize("objective", ["log-huber", "mse"])
def test_the_exponent_of_a_term_that_is_zero_waits_until_it_is_one(objective):
    made, start, weight = problem(objective)
    without = np.array([False, True, False, True, False])
    z = minimise(made, np.where(without, [0, 0, 0, 0.3, 0], start[:1]), weight, frozen=without).z[0]
    at = Point(made, z, weight)
    assert at.gradient[1] < 0.0  # the term wants to be there, whatever its exponent does
    batch = damped_step(made, at.state(), np.zeros(1))
    step, _, convex = descent._step(descent.Box.of(made), at, 0.0)
    assert convex
    assert batch.convex[0]
    assert step[3] == batch.step[0, 3] == 0.0
    assert step[1] > 0.0
    np.testing.assert_allclose(step, batch.step[0], rtol=1e-6)


@given(lam=st.floats(0.0, 3.0), better=st.booleans())
def test_the_damping_of_one_is_that_of_a_batch(lam, better):
    batch = (relax if better else stiffen)(np.array([lam]))[0]
    assert descent._next(lam, better=better) == pytest.approx(batch, rel=1e-12)


def test_two_bounds_that_are_met_at_once_hold_both():
    box = descent.Box([0.1, 0.1], [2.0, 2.0])
    z, here, beyond = np.ones(2), np.zeros(2), np.full(2, -1.8)
    reach, first, edge = box.first_met(z, here, beyond, [])
    assert (reach, first) == (0.5, 0)
    assert edge == pytest.approx(-0.9)
    assert box.first_met(z, beyond, beyond, [0])[:2] == (0.0, 1)
