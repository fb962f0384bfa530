from __future__ import annotations

import numpy as np
import pytest
from referee import needs_referee, table

from scaling_nb import ChinchillaLaw, fit_law
from scaling_nb.fit.influence import find_drivers, influence
from scaling_nb.fit.objective import Objective
from scaling_nb.fit.search import solve
from scaling_nb.laws import Constraints

LAW = ChinchillaLaw()
TRUE = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}


def found(seed=0, n=60):
    rng = np.random.default_rng(seed)
    sizes, tokens = 10 ** rng.uniform(7, 9.5, n), 10 ** rng.uniform(9, 11, n)
    loss = LAW.predict(TRUE, sizes, tokens) * np.exp(0.004 * rng.standard_normal(n))
    inputs = {"N": sizes, "D": tokens}
    return solve(LAW, inputs, loss, Objective("mse"), constraints=Constraints(), weight=np.ones(n))


def test_the_first_order_move_is_what_leaving_a_run_out_does():
    full = found()
    moves = influence(full.problem, full.z[0], full.weight)
    top = np.argsort(-np.abs(moves[:, 4]))[:5]
    for i in top:
        surface = full.problem.surface
        keep = np.delete(np.arange(60), i)
        inputs = {
            name: np.exp(surface.x[k, keep] + surface.centre[k]) for k, name in enumerate("ND")
        }
        less = solve(
            LAW, inputs, full.problem.observed[keep], Objective("mse"),
            constraints=Constraints(), weight=np.ones(59),
        )  # fmt: skip
        actual = less.params[4] - full.params[4]
        assert actual == pytest.approx(moves[i, 4], rel=0.35)


def test_runs_of_one_law_have_no_drivers_to_speak_of():
    full = found(3)
    drivers = find_drivers(full.problem, full.z[:1], full.weight, LAW.param_names)
    assert {d.name for d in drivers} == {"alpha", "beta"}
    assert all(d.shift < 3 for d in drivers)


@needs_referee
def test_the_five_points_that_move_beta_are_found():
    fit = fit_law(table("epoch_chinchilla_all245"), bootstrap=200)
    dropped = set(table("epoch_chinchilla_all245").run_ids[:5])
    (note,) = [w for w in fit.warnings if w.code == "influential_runs" and "beta" in w.message]
    assert note.values["with"] == pytest.approx(0.453, abs=1e-3)
    assert note.values["without"] == pytest.approx(0.367, abs=5e-3)
    assert len(set(note.run_ids) & dropped) >= 4
    clean = fit_law(table("epoch_chinchilla_240"), bootstrap=200)
    assert not [w for w in clean.warnings if w.code == "influential_runs"]


@needs_referee
def test_they_are_found_with_squares_too_where_they_hide_each_other():
    fit = fit_law(table("epoch_chinchilla_all245"), objective="mse", bootstrap=200)
    (note,) = [w for w in fit.warnings if w.code == "influential_runs" and "beta" in w.message]
    assert note.values["with"] == pytest.approx(0.661, abs=1e-3)
    assert note.values["without"] < 0.46
    assert fit.status != "converged"


def test_two_runs_that_hide_each_other_are_found():
    full = found(0)
    problem = full.problem
    largest = np.argsort(-problem.surface.x.sum(axis=0))[:2]
    loss = problem.observed.copy()
    loss[largest] *= 1.05
    bent = solve(
        LAW, {name: np.exp(problem.surface.x[k]) for k, name in enumerate("ND")}, loss,
        Objective("mse"), constraints=Constraints(), weight=np.ones(60),
    )  # fmt: skip
    drivers = find_drivers(bent.problem, bent.z[:1], bent.weight, LAW.param_names)
    assert any(set(largest) <= set(d.rows) and d.shift > 3 for d in drivers)
