from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from referee import needs_referee, table

from scaling_nb import ChinchillaLaw, fit_law, published, simulate
from scaling_nb.fit.diagnose import Evidence, judge, modes, scaled_condition
from scaling_nb.laws import DataConstrainedLaw, PowerLaw
from scaling_nb.simulation import RandomDesign

LAW = ChinchillaLaw()
SOUND = Evidence(
    n_runs=50, n_free=5, bounds={}, steep={}, condition=1e3, collinear=False, converged=True,
    rival=np.inf,
)  # fmt: skip


def test_sound_evidence_is_converged_and_silent():
    assert judge(SOUND, LAW) == ("converged", [])


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"n_runs": 5}, "not_identified", "no_spare_runs"),
        ({"n_runs": 9}, "ill_conditioned", "few_runs"),
        ({"collinear": True}, "not_identified", "collinear_design"),
        ({"bounds": {"E": 0.0}}, "at_bound", "at_bound"),
        ({"bounds": {"A": 0.0}}, "at_bound", "at_bound"),
        ({"bounds": {"alpha": 3.0}}, "at_bound", "at_bound"),
        ({"steep": {"alpha": 2.0}}, "ill_conditioned", "steep_exponent"),
        ({"condition": 1e9}, "ill_conditioned", "ill_conditioned"),
        ({"condition": 1e14}, "not_identified", "ill_conditioned"),
        ({"converged": False}, "ill_conditioned", "solver_stopped"),
        ({"rival": 1.0001}, "ill_conditioned", "rival_optimum"),
        ({"at_bound_share": 0.2}, "ill_conditioned", "resamples_at_bound"),
        (
            {"exponent": np.random.default_rng(0).uniform(0.1, 0.9, 500)},
            "not_identified",
            "exponent_says_nothing",
        ),
        (
            {"log_n_star": np.random.default_rng(0).normal(20, 4, 500)},
            "not_identified",
            "optimum_says_nothing",
        ),
    ],
)
def test_each_finding_has_its_status_and_a_remedy(change, status, code):
    found, notes = judge(replace(SOUND, **change), LAW)
    assert found == status
    (note,) = [n for n in notes if n.code == code]
    assert note.remedy.endswith(".")
    assert str(note) == f"{note.message} {note.remedy}"


def test_the_gravest_finding_decides():
    status, notes = judge(replace(SOUND, bounds={"E": 0.0}, collinear=True), LAW)
    assert status == "not_identified"
    assert len(notes) == 2


def test_two_heaps_are_two_modes_and_one_is_one():
    rng = np.random.default_rng(0)
    one = rng.normal(0.5, 0.03, 1000)
    assert len(modes(one)) == 1
    assert len(modes(rng.standard_t(3, 1000))) == 1
    two = np.concatenate([one[:600], rng.normal(0.8, 0.02, 400)])
    assert modes(two) == pytest.approx([0.5, 0.8], abs=0.03)
    few = np.concatenate([one[:960], rng.normal(0.8, 0.02, 40)])
    assert len(modes(few)) == 1
    assert len(modes(np.full(100, 0.5))) == 1


def test_the_condition_does_not_depend_on_units():
    rng = np.random.default_rng(0)
    jacobian = rng.standard_normal((40, 5))
    unit = np.array([1.0, 1e6, 1e-6, 3.0, 1e3])
    none = np.zeros(5, bool)
    plain = scaled_condition(jacobian.T @ jacobian, none)
    scaled = jacobian * unit
    assert scaled_condition(scaled.T @ scaled, none) == pytest.approx(plain, rel=1e-9)


def noisy(params, noise, seed=0):
    rng = np.random.default_rng(seed)
    n, d = 10 ** rng.uniform(7, 9.5, 50), 10 ** rng.uniform(9, 11, 50)
    loss = LAW.predict(params, n, d) * np.exp(noise * rng.standard_normal(50))
    return pd.DataFrame({"N": n, "D": d, "loss": loss})


def test_a_floor_that_is_not_there_is_not_claimed():
    flat = {"E": 0.0, "A": 20.0, "B": 60.0, "alpha": 0.08, "beta": 0.1}
    fit = fit_law(noisy(flat, 0.01), bootstrap=200)
    assert fit.status != "converged"
    told = {w.code for w in fit.warnings}
    assert told & {"irreducible_loss_not_identified", "at_bound", "resamples_at_bound"}


def test_noise_that_drowns_everything_says_so():
    fit = fit_law(
        noisy({"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}, 0.5), bootstrap=200
    )
    assert fit.status in ("not_identified", "at_bound", "ill_conditioned")
    assert fit.warnings


def test_a_clean_table_is_converged_without_warnings():
    fit = fit_law(
        noisy({"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}, 0.003),
        bootstrap=200,
    )
    assert fit.status == "converged"
    assert fit.warnings == ()


@needs_referee
def test_the_flat_profile_names_its_range():
    fit = fit_law(table("porian_rw_base_long_kaplan_kaplan_train"), bootstrap=300)
    (note,) = [w for w in fit.warnings if w.code == "irreducible_loss_not_identified"]
    assert "flat from E = 0 to 1.6" in note.message
    assert fit.status == "ill_conditioned"


@needs_referee
@pytest.mark.parametrize("name", ["attention_train_att", "kaplan_train", "standard_val"])
def test_no_boundary_is_ever_converged(name):
    prefix = "porian_rw_base_long_kaplan"
    fit = fit_law(table(f"{prefix}_{name}"), objective="mse", bootstrap=100)
    assert fit.params["E"] == 0.0
    assert fit.status == "at_bound"


def test_as_many_runs_as_parameters_have_no_intervals():
    few = simulate(published["besiroglu_2024"], RandomDesign(n_runs=5), 0.01, 0)
    fit = fit_law(few, bootstrap=200)
    assert fit.status == "not_identified"
    assert (fit.samples, dict(fit.intervals)) == (None, {})
    assert fit.allocate(1e22).intervals == {}


def test_a_sample_without_a_peak_of_its_own_has_one_mode():
    assert modes(np.concatenate([np.full(500, 0.3), np.full(2, 0.3 + 1e-6)])) == [0.3]
    n = np.geomspace(1e7, 1e10, 32)
    rising = pd.DataFrame({"N": n, "D": 1e11 / n**0.3, "loss": 2 + 1e-10 * n})
    assert fit_law(rising, objective="mse", bootstrap=200).status != "converged"


def test_a_fit_without_a_bootstrap_is_not_called_converged_where_one_would_object():
    """A quarter of a nat of noise: either way the exponent can be almost anything."""
    agreed = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        budgets = np.repeat([1e18, 1e19, 1e20], 6)
        n = np.sqrt(budgets / 120) * np.tile(np.geomspace(0.4, 2.5, 6), 3)
        d = budgets / 6 / n
        loss = 1.7 + 400 / n**0.34 + 1500 / d**0.37
        runs = pd.DataFrame({"N": n, "D": d, "loss": loss * np.exp(rng.normal(0, 0.08, 18))})
        quick, full = fit_law(runs, bootstrap=0), fit_law(runs, bootstrap=300)
        assert full.status != "converged"
        agreed += quick.status != "converged"
    assert agreed >= 10


HEAPS = np.random.default_rng(0).normal(0.4, 0.01, 1000) + 0.3 * (np.arange(1000) % 3 == 0)


@pytest.mark.parametrize(("name", "told"), [("E", "E near 0.4"), ("ln B", "B near 1.49")])
def test_any_free_parameter_may_fall_into_groups(name, told):
    status, (note,) = judge(replace(SOUND, free={name: HEAPS}), LAW)
    assert (status, note.code) == ("ill_conditioned", "bimodal_bootstrap")
    assert told in note.message
    assert judge(replace(SOUND, free={name: HEAPS}, resampled=False), LAW)[0] == "converged"


def test_a_law_of_one_variable_says_when_its_exponent_is_vague():
    wide = np.random.default_rng(0).uniform(0.05, 0.9, 500)
    status, (note,) = judge(replace(SOUND, free={"alpha": wide}), PowerLaw("D"))
    assert (status, note.code) == ("not_identified", "exponent_says_nothing")
    assert "how the loss falls with D" in note.message
    assert judge(replace(SOUND, free={"alpha": wide}), LAW)[0] == "converged"


def test_the_worth_of_repeats_may_be_unknown():
    wide = np.random.default_rng(0).uniform(0, 10, 500)
    status, (note,) = judge(replace(SOUND, free={"ln R_D_star": wide}), DataConstrainedLaw())
    assert (status, note.code) == ("ill_conditioned", "repeats_say_nothing")


def test_a_floor_held_above_losses_is_named():
    runs = noisy({"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}, 0.01)
    floor = float(runs["loss"].quantile(0.1))
    fit = fit_law(runs, fixed={"E": floor}, bootstrap=0)
    (note,) = [w for w in fit.warnings if w.code == "floor_above_losses"]
    assert note.values["runs"] == (runs["loss"] <= floor).sum() > 0
    assert fit.status != "converged"
    low = fit_law(runs, fixed={"E": 1.5}, bootstrap=0)
    assert not [w for w in low.warnings if w.code == "floor_above_losses"]


@pytest.mark.parametrize(
    ("names", "remedy"), [(("E",), "fixed={'E'"), (("R_D_star",), "epochs"), (("beta",), "ranges")]
)
def test_the_bound_that_resamples_end_on_is_named(names, remedy):
    _, (note,) = judge(replace(SOUND, at_bound_share=0.2, often_at_bound=names), LAW)
    assert f"on a bound of {names[0]}" in note.message
    assert remedy in note.remedy
