from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from noisy_runs import LAW, problem
from scipy.optimize import minimize

from scaling_nb.fit.boxed_step import State, active_set, damped_step
from scaling_nb.fit.newton import minimise
from scaling_nb.fit.objective import Objective
from scaling_nb.fit.problem import evaluate, make_problem, values
from scaling_nb.laws import Constraints


@pytest.mark.parametrize("objective", ["log-huber", "mse"])
def test_gradient_and_hessian_are_derivatives_of_the_value(objective):
    made, start, weight = problem(objective)
    z = start[:1] * 1.01
    _, gradient, hessian, gauss = evaluate(made, z, weight)
    for j in range(5):
        h = 1e-6 * np.abs(z[0, j])
        ahead, behind = z.copy(), z.copy()
        ahead[0, j] += h
        behind[0, j] -= h
        slope = (values(made, ahead, weight) - values(made, behind, weight)) / (2 * h)
        assert slope[0] == pytest.approx(gradient[0, j], rel=1e-5, abs=1e-7)
    assert np.linalg.eigvalsh(gauss[0])[0] > 0
    np.testing.assert_allclose(hessian, hessian.swapaxes(1, 2), atol=1e-12)


def test_many_runs_go_through_in_parts():
    made, start, weight = problem(n=30_000)
    one = evaluate(made, start[:1], weight)
    surface = made.surface.loss(made.theta(start[:1]))
    direct = made.objective.value(made.observed, surface, weight)
    assert one[0][0] == pytest.approx(direct[0], rel=1e-12)
    assert values(made, start[:1], weight)[0] == pytest.approx(direct[0], rel=1e-12)


@pytest.mark.parametrize("objective", ["log-huber", "mse"])
def test_no_worse_than_scipy_from_the_same_start(objective):
    made, start, weight = problem(objective, seed=3)
    ours = minimise(made, start, weight)
    bounds = list(zip(made.lower, np.where(np.isinf(made.upper), None, made.upper), strict=True))
    theirs = minimize(
        lambda z: values(made, z[None], weight)[0],
        start[0],
        jac=lambda z: evaluate(made, z[None], weight)[1][0],
        bounds=bounds,
        method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 0.0, "gtol": 1e-12},
    )
    assert ours.value.min() <= theirs.fun * (1 + 1e-9)
    assert ours.converged.any()


def test_an_optimum_on_the_boundary_satisfies_the_conditions_exactly():
    made, start, weight = problem("mse", floor=-0.5, seed=8)
    found = minimise(made, start, weight)
    best = int(found.value.argmin())
    on = active_set(made, found.z[best : best + 1], found.gradient[best : best + 1])[0]
    assert found.z[best, 0] == 0.0
    assert on[0]
    assert np.abs(found.gradient[best][~on]).max() < 1e-8


def test_only_the_first_bound_met_holds_a_step():
    # The least value without bounds is at (-2, -1). The first coordinate meets its bound first;
    # along that edge the second is least at 0.8, which clipping both at once would never see.
    matrix = np.array([[[1.0, -0.9], [-0.9, 1.0]]])
    made = replace(problem()[0], lower=np.zeros(2), upper=np.full(2, np.inf))
    z, target = np.array([[1.0, 1.0]]), np.array([[-2.0, -1.0]])
    gradient = np.einsum("sij,sj->si", matrix, z - target)
    step, slope, _ = damped_step(made, State(z, np.ones(1), gradient, matrix, matrix), np.ones(1))
    np.testing.assert_allclose(z + step, [[0.0, 0.8]], atol=1e-12)
    assert slope[0] < 0


def test_a_valley_that_bends_towards_a_bound_is_followed_to_its_end():
    # Twelve runs that show no floor: with E the valley bends in all five coordinates, and the
    # optimum is on E = 0. A solver of straight steps still creeps along it after 200 iterations.
    rng = np.random.default_rng(5)
    n, d = 10 ** rng.uniform(7, 10, 12), 10 ** rng.uniform(9, 11, 12)
    inputs = {"N": n, "D": d}
    true = {"E": 0.0, "A": 12.0, "B": 60.0, "alpha": 0.08, "beta": 0.15}
    loss = LAW.loss(true, inputs) * np.exp(0.01 * rng.standard_normal(12))
    for objective in ("mse", "log-huber"):
        surface = LAW.surface(inputs)
        made = make_problem(surface, LAW.param_names, loss, Objective(objective), Constraints())
        start = surface.to_theta(np.array([[0.9, 40.0, 200.0, 0.2, 0.2]]))
        found = minimise(made, made.free(start), np.ones(12), max_iterations=80)
        assert found.converged.all()


def test_a_batch_gives_what_single_fits_give():
    made, start, _ = problem(seed=4)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=6).astype(float)
    batch = minimise(made, np.tile(start[0], (6, 1)), weights)
    for row in range(6):
        single = minimise(made, start[:1], weights[row])
        assert batch.value[row] == pytest.approx(single.value[0], rel=1e-10)


def test_frozen_coordinates_stay():
    made, start, weight = problem()
    moved = start[:1].copy()
    moved[0, 0] = 1.234
    frozen = np.array([True, False, False, False, False])
    found = minimise(made, moved, weight, frozen=frozen)
    assert found.z[0, 0] == 1.234
    assert np.abs(found.gradient[0, 1:]).max() < 1e-8


def test_shared_and_fixed_parameters_leave_fewer_coordinates():
    made, start, weight = problem(
        constraints=Constraints(fixed={"E": 1.7}, shared=("alpha", "beta"))
    )
    assert made.mixing.shape == (5, 3)
    theta = made.theta(minimise(made, start, weight).z)
    assert np.all(theta[:, 0] == 1.7)
    np.testing.assert_array_equal(theta[:, 3], theta[:, 4])


def test_a_member_that_comes_near_its_known_minimum_is_given_up_there():
    made, starts, weight = problem("mse")
    weights = np.stack([weight, weight])
    best = minimise(made, starts[[0, 0]], weights)
    far = np.stack([best.z[0] * 1.02, best.z[1] * 1.02])
    only_first = replace(best, z=np.stack([best.z[0], best.z[1] * 10.0]))
    again = minimise(made, far, weights, known=only_first)
    assert again.converged.all()
    assert again.value[1] == pytest.approx(best.value[1], rel=1e-9)
    assert best.value[0] < again.value[0] <= 1.01 * best.value[0]
    # What lies lower than the known minimum does not lead there.
    higher = replace(best, value=1.005 * best.value)
    assert minimise(made, far, weights, known=higher).value == pytest.approx(best.value, rel=1e-6)
