from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from referee import needs_referee, reference, table

import scaling_nb as snb
from scaling_nb.columns import TEXT
from scaling_nb.errors import FitError, TooFewRunsError
from scaling_nb.fit.parabola import fit_parabola
from scaling_nb.fit.slices import slices_of
from scaling_nb.records import COLUMNS
from scaling_nb.simulation import IsoFlopDesign, RandomDesign

LAW = snb.published["besiroglu_2024"]
SYMMETRIC = {"E": 1.7, "A": 400.0, "B": 400.0, "alpha": 0.35, "beta": 0.35}
BUDGETS = (1e18, 1e19, 1e20, 1e21)


def noisy(seed=0, noise=0.003, **design):
    return snb.simulate(LAW, IsoFlopDesign(budgets=BUDGETS, **design), noise, seed)


def scaled(runs, n=1.0, d=1.0, loss=1.0):
    columns = dict(runs.columns)
    columns["N"], columns["D"] = columns["N"] * n, columns["D"] * d
    columns["C"], columns["budget"] = columns["C"] * n * d, columns["budget"] * n * d
    columns["loss"] = columns["loss"] * loss
    return dataclasses.replace(runs, columns=columns)


def codes(fit):
    return [note.code for note in fit.warnings]


def test_a_symmetric_surface_is_recovered():
    design = IsoFlopDesign(
        budgets=BUDGETS, n_sizes=9, span=100.0, tokens_per_param=1.0, shared_sizes=False
    )
    fit = snb.fit_isoflop(snb.simulate(snb.ChinchillaLaw(), design, params=SYMMETRIC))
    best = np.sqrt(np.array(BUDGETS) / 6)
    np.testing.assert_allclose([m.n_params for m in fit.minima], best, rtol=1e-9)
    assert fit.exponent_N == pytest.approx(0.5, abs=1e-9)
    assert fit.exponent_D == pytest.approx(0.5, abs=1e-9)


def test_the_vertex_of_exact_parabolas_is_exact():
    n = np.geomspace(1e7, 1e9, 7)
    rows = []
    for budget, best in ((1e18, 5e7), (1e19, 1.5e8), (1e20, 4e8)):
        loss = 3.0 + 0.02 * np.log(n / best) ** 2
        rows += [
            snb.Run(run_id=f"{budget}-{k}", N=n[k], D=budget / 6 / n[k], C=budget, loss=loss[k],
                    budget=budget)
            for k in range(7)
        ]  # fmt: skip
    fit = snb.fit_isoflop(snb.RunTable.from_runs(rows), bootstrap=0)
    np.testing.assert_allclose([m.n_params for m in fit.minima], [5e7, 1.5e8, 4e8], rtol=1e-10)
    np.testing.assert_allclose([m.loss for m in fit.minima], 3.0, rtol=1e-12)
    np.testing.assert_allclose(
        [m.n_tokens for m in fit.minima], [1e18 / 3e8, 1e19 / 9e8, 1e20 / 2.4e9], rtol=1e-10
    )


def test_the_answer_carries_intervals_that_contain_it():
    fit = snb.fit_isoflop(noisy())
    assert fit.status == "converged"
    answer = fit.allocate(1e22)
    for name in ("n_params", "n_tokens", "loss", "tokens_per_param"):
        low, high = answer.intervals[name]
        assert low < getattr(answer, name) < high
    assert answer.extrapolation == pytest.approx(10.0)
    assert answer.n_params * answer.n_tokens * 6 == pytest.approx(1e22)
    low, high = fit.intervals["exponent_N"]
    assert low < fit.exponent_N < high


def test_tokens_come_from_the_runs_own_flops():
    runs = noisy()
    columns = dict(runs.columns)
    overhead = 1.0 + 3.0 * (columns["N"] / 1e8) ** -0.5
    columns["D"] = columns["C"] / (6 * columns["N"] * overhead)
    fit = snb.fit_isoflop(dataclasses.replace(runs, columns=columns), bias=False)
    for m in fit.minima:
        true = m.compute / (6 * m.n_params * (1.0 + 3.0 * (m.n_params / 1e8) ** -0.5))
        assert m.n_tokens == pytest.approx(true, rel=0.02)
    answer = fit.allocate(1e24)
    assert 6 * answer.n_params * answer.n_tokens < 1e24
    assert 6 * answer.n_params * answer.n_tokens > 0.8e24


@pytest.mark.parametrize(("off_center", "status"), [(0.02, "at_largest"), (50.0, "at_smallest")])
def test_a_minimum_outside_the_grid_is_no_optimum(off_center, status):
    fit = snb.fit_isoflop(noisy(off_center=off_center))
    assert {m.status for m in fit.minima} == {status}
    assert fit.status == "not_identified"
    assert np.isnan(fit.exponent_N)
    assert codes(fit).count("minimum_not_bracketed") == 4
    assert "too_few_optima" in codes(fit)
    with pytest.raises(FitError, match="a power law needs two"):
        fit.allocate(1e22)


def test_only_optima_enter_the_power_law():
    runs = noisy(noise=0.0)
    largest = runs.where(budget=BUDGETS[-1])
    best = np.argmin(largest.L)
    beyond = float(largest.N[best]) < largest.N
    ids = np.array(largest.run_ids)[beyond]
    cut = runs.exclude(list(ids), reason="left of the minimum only")
    fit, without = snb.fit_isoflop(cut), snb.fit_isoflop(cut.where(budget=list(BUDGETS[:3])))
    assert [m.status for m in fit.minima] == ["optimum"] * 3 + ["at_largest"]
    assert fit.exponent_N == without.exponent_N
    assert "Add runs with N >" in str(fit.warnings[0])


def test_a_parabola_that_opens_downward_has_no_minimum():
    runs = noisy(noise=0.0)
    columns = dict(runs.columns)
    slices = np.flatnonzero(columns["budget"] == BUDGETS[0])
    slices = slices[np.argsort(columns["N"][slices])]
    columns["loss"] = columns["loss"].copy()
    columns["loss"][slices] = [3.9, 4.2, 3.8, 4.2, 4.15, 3.9]
    fit = snb.fit_isoflop(dataclasses.replace(runs, columns=columns))
    assert fit.minima[0].status == "no_minimum"
    assert "opens downward" in fit.minima[0].note.message


def test_two_sizes_are_too_few_and_two_optima_are_said():
    runs = noisy(noise=0.001)
    thin = runs.where(budget=BUDGETS[0])
    ids = list(np.array(thin.run_ids)[2:])
    fit = snb.fit_isoflop(runs.where(budget=list(BUDGETS[:3])).exclude(ids, reason="thinned"))
    assert [m.status for m in fit.minima] == ["too_few_sizes", "optimum", "optimum"]
    assert fit.status == "ill_conditioned"
    assert "two_optima" in codes(fit)


def test_three_sizes_a_budget_leave_no_interval():
    fit = snb.fit_isoflop(noisy(n_sizes=3, span=9.0, noise=0.0, shared_sizes=False))
    assert "no_residual" in codes(fit)
    assert fit.status == "ill_conditioned"
    assert fit.allocate(1e22).intervals == {}


def test_runs_without_slices_are_refused():
    runs = snb.simulate(LAW, RandomDesign(n_runs=60))
    with pytest.raises(TooFewRunsError, match="IsoFLOP slices"):
        snb.fit_isoflop(runs)


def test_budgets_are_read_off_compute_and_said():
    runs = noisy()
    bare = dataclasses.replace(runs, columns={**runs.columns, "budget": np.full(len(runs), np.nan)})
    fit, named = snb.fit_isoflop(bare), snb.fit_isoflop(runs)
    assert "budgets_inferred" in codes(fit)
    assert fit.exponent_N == pytest.approx(named.exponent_N, rel=1e-12)


def test_a_wide_off_centre_grid_is_biased_and_says_so():
    steep = {"E": 1.7, "A": 300.0, "B": 3000.0, "alpha": 0.25, "beta": 0.45}
    # D / N at the optimum changes with C, so a grid at 20 tokens per parameter drifts off centre.
    design = IsoFlopDesign(budgets=(1e17, 1e19, 1e21), n_sizes=13, span=3000.0)
    runs = snb.simulate(snb.ChinchillaLaw(), design, params=steep)
    wide = snb.fit_isoflop(runs, window=None)
    assert "parabola_bias" in codes(wide)
    true = 0.45 / 0.7
    assert wide.bias.exponent_N == pytest.approx(wide.exponent_N - true, abs=0.01)
    narrow = snb.fit_isoflop(runs)
    assert abs(narrow.exponent_N - true) < abs(wide.exponent_N - true)


def test_a_diverged_run_is_named_and_not_dropped():
    runs = noisy(n_sizes=8)
    columns = {**runs.columns, "loss": runs.columns["loss"].copy()}
    middle = 11
    columns["loss"][middle] = 11.0
    fit = snb.fit_isoflop(dataclasses.replace(runs, columns=columns))
    (note,) = [note for note in fit.warnings if note.code == "outliers"]
    assert note.run_ids == (runs.run_ids[middle],)
    assert "outliers" not in codes(snb.fit_isoflop(runs))


def test_a_run_without_loss_is_left_out_and_said():
    runs = noisy()
    columns = {**runs.columns, "loss": runs.columns["loss"].copy()}
    columns["loss"][3] = np.nan
    fit = snb.fit_isoflop(dataclasses.replace(runs, columns=columns))
    assert "left_out" in codes(fit)
    assert len(fit.runs) == len(runs) - 1


def test_compute_is_6nd_where_runs_do_not_say():
    runs = noisy()
    bare = dataclasses.replace(runs, columns={**runs.columns, "C": np.full(len(runs), np.nan)})
    assert snb.fit_isoflop(bare).exponent_N == pytest.approx(snb.fit_isoflop(runs).exponent_N)


def test_mixtures_of_schedules_and_learning_rates_are_said():
    runs = snb.simulate(LAW, IsoFlopDesign(budgets=BUDGETS), 0.003, 0, seeds=2)
    assert {"mixed_schedules", "mixed_learning_rates"}.isdisjoint(codes(snb.fit_isoflop(runs)))
    half = runs.columns["seed"] == 0
    columns = {
        **runs.columns,
        "schedule": np.where(half, "wsd", "cosine").astype(object),
        "lr": np.where(half, 1e-3, 3e-3),
    }
    fit = snb.fit_isoflop(dataclasses.replace(runs, columns=columns))
    assert {"mixed_schedules", "mixed_learning_rates"} <= set(codes(fit))


def test_resamples_are_reproducible_and_follow_the_seed():
    runs = noisy()
    one, same, other = (snb.fit_isoflop(runs, seed=seed) for seed in (1, 1, 2))
    assert one.intervals == same.intervals
    assert one.intervals != other.intervals
    assert one.exponent_N == other.exponent_N


def test_shared_noise_of_a_trunk_widens_no_less_than_it_should():
    runs = snb.simulate(LAW, IsoFlopDesign(budgets=BUDGETS), 0.0, 3, trunk_noise=0.005)
    assert len(set(runs.column("group"))) < len(runs)
    columns = {**runs.columns, "group": np.full(len(runs), "", dtype=object)}
    alone = snb.fit_isoflop(dataclasses.replace(runs, columns=columns))
    together = snb.fit_isoflop(runs)
    assert together.exponent_N == alone.exponent_N
    assert together.intervals != alone.intervals


@pytest.mark.slow
@pytest.mark.parametrize("trunk", [False, True])
def test_intervals_of_the_exponent_cover(trunk):
    inside = 0
    true = LAW.exponent_N
    for seed in range(400):
        noise = (0.002, 0.003) if trunk else (0.004, 0.0)
        design = IsoFlopDesign(budgets=BUDGETS, n_sizes=7)
        runs = snb.simulate(LAW, design, noise[0], seed, trunk_noise=noise[1])
        low, high = snb.fit_isoflop(runs, bias=False, bootstrap=400).intervals["exponent_N"]
        inside += low <= true <= high
    assert 0.85 <= inside / 400 <= 0.95


units = st.floats(min_value=1e-9, max_value=1e9)


@settings(max_examples=25)
@given(n=units, d=units, loss=st.floats(min_value=0.1, max_value=10.0))
def test_units_do_not_matter(n, d, loss):
    runs = noisy()
    fit = snb.fit_isoflop(runs, bootstrap=50, bias=False)
    other = snb.fit_isoflop(scaled(runs, n, d, loss), bootstrap=50, bias=False)
    assert other.exponent_N == pytest.approx(fit.exponent_N, rel=1e-8)
    for one, two in zip(fit.minima, other.minima, strict=True):
        assert two.n_params == pytest.approx(one.n_params * n, rel=1e-8)
        assert two.n_tokens == pytest.approx(one.n_tokens * d, rel=1e-8)
        assert two.loss == pytest.approx(one.loss * loss, rel=1e-8)
    np.testing.assert_allclose(
        other.intervals["exponent_N"], fit.intervals["exponent_N"], rtol=1e-6
    )


@settings(max_examples=25)
@given(st.randoms(use_true_random=False))
def test_order_does_not_matter(random):
    runs = noisy()
    order = list(range(len(runs)))
    random.shuffle(order)
    mixed = dataclasses.replace(runs, columns={k: v[order] for k, v in runs.columns.items()})
    one, two = (snb.fit_isoflop(r, bootstrap=0, bias=False) for r in (runs, mixed))
    np.testing.assert_allclose(
        [m.n_params for m in one.minima], [m.n_params for m in two.minima], rtol=1e-10
    )


def test_the_window_keeps_five_sizes_and_follows_the_minimum():
    (part, *_), _ = slices_of(noisy(n_sizes=11, span=1000.0, noise=0.0))
    fit = fit_parabola(part, 1.01)
    assert len(np.unique(part.log_n[fit.keep])) == 5
    everything = fit_parabola(part, None)
    assert len(everything.keep) == 11


@pytest.mark.parametrize("options", [{"window": 1.0}, {"window": -2.0}, {"level": 1.0}])
def test_options_are_checked(options):
    with pytest.raises(FitError):
        snb.fit_isoflop(noisy(), **options)


@pytest.mark.parametrize("compute", [0.0, -1e18, np.nan, np.inf, "1e20", None, [1e20, 2e20]])
def test_a_compute_that_is_none_is_refused(compute):
    with pytest.raises(FitError, match="positive"):
        snb.fit_isoflop(noisy(), bootstrap=0).allocate(compute)


def test_a_fit_shows_itself():
    fit = snb.fit_isoflop(noisy())
    assert f"{fit.exponent_N:.3f}" in repr(fit)
    assert "N* ∝ C^a" in str(fit)
    assert fit._repr_html_().count("<tr>") == 5
    frame = fit.minima_frame()
    assert list(frame["budget"]) == list(BUDGETS)
    assert list(fit.chinchilla_table([1e20, 1e22])["C"]) == [1e20, 1e22]


@pytest.mark.parametrize("runs", [40_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_very_many_runs_do_not_hang(runs):
    rng = np.random.default_rng(0)
    budget = np.repeat(BUDGETS, runs // 4)
    n = np.sqrt(budget / 120) * np.exp(rng.uniform(-1.5, 1.5, len(budget)))
    d = budget / 6 / n
    blank, done = (np.full(len(n), word, dtype=object) for word in ("", "finished"))
    none = np.full(len(n), np.nan)
    columns = {name: blank if name in TEXT else none for name in COLUMNS} | {"status": done}
    columns |= {"N": n, "D": d, "C": budget, "budget": budget}
    columns["loss"] = LAW.predict(n, d) * np.exp(0.01 * rng.normal(size=len(n)))
    fit = snb.fit_isoflop(snb.RunTable(columns=columns), bias=False)
    assert fit.exponent_N == pytest.approx(LAW.exponent_N, abs=0.01)


comparable = [
    name
    for name, entry in reference().items()
    if name != "_meta" and entry["approach2"] and entry["approach2"]["n_budgets"] > 1
]


@needs_referee
@pytest.mark.parametrize("name", comparable)
def test_published_slices_give_the_certified_exponent(name):
    runs, certified = table(name), reference()[name]["approach2"]
    fit = snb.fit_isoflop(runs, window=None, bootstrap=0, bias=False)
    found = {round(np.log10(m.budget), 3): np.log10(m.n_params) for m in fit.optima}
    for log_c, log_n in zip(certified["log10_C"], certified["log10_Nopt"], strict=True):
        if round(log_c, 3) in found:
            assert found[round(log_c, 3)] == pytest.approx(log_n, abs=1e-3)
    iso = np.allclose(runs.C, runs.column("budget").astype(float), rtol=1e-3)
    if len(fit.optima) == certified["n_budgets"] and iso:
        assert fit.exponent_N == pytest.approx(certified["a"], abs=1e-3)
        assert fit.exponent_D == pytest.approx(certified["b"], abs=1e-3)


@needs_referee
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("porian_rw_base_long_kaplan_standard_val", 0.70),
        ("porian_rw_base_short_kaplan_standard_val", 0.60),
        ("porian_rw_base_short_chinchilla_standard_val", 0.57),
        ("porian_rw_tuned_short_const_standard_val", 0.50),
        ("xlstm_llama_ctx8192", 0.581),
        ("llama3_raw_loss", 0.463),
    ],
)
def test_the_windowed_exponent_agrees_with_the_paper(name, published):
    assert snb.fit_isoflop(table(name), bootstrap=0).exponent_N == pytest.approx(
        published, abs=0.02
    )


def test_three_diverged_runs_in_three_slices_are_all_named():
    runs = snb.simulate(
        snb.published["besiroglu_2024"],
        IsoFlopDesign(budgets=(1e18, 3e18, 1e19, 3e19, 1e20), n_sizes=10),
        0.003,
        0,
    )
    loss = runs.columns["loss"].copy()
    loss[[3, 17, 30]] = [11.2, 13.1, 10.9]
    fit = snb.fit_isoflop(snb.RunTable(columns={**runs.columns, "loss": loss}), bootstrap=50)
    note = next(n for n in fit.warnings if n.code == "outliers")
    assert note.run_ids == ("sim-0003", "sim-0017", "sim-0030")
    assert "loss 13.1 at C = 3e+18" in note.message
    assert fit.status != "converged"


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((2e3, 5.78e3), "4.52e+03 (2e+03 to 5.78e+03)"),
        ((0.0, 5.78e3), "4.52e+03 (no lower bound, up to 5.78e+03)"),
        ((2e3, np.inf), "4.52e+03 (from 2e+03, no upper bound)"),
        ((0.0, np.inf), "4.52e+03 (no bound on either side)"),
    ],
)
def test_an_open_interval_is_said_in_words(ends, words):
    minimum = snb.fit_isoflop(noisy(), bootstrap=0).minima[0]
    changed = {"n_params": 4520.0, "intervals": {"n_params": ends}}
    shown = dataclasses.replace(minimum, status="optimum", **changed)
    assert shown.n_params_text == words


def test_one_budget_is_told_to_add_budgets():
    fit = snb.fit_isoflop(noisy().where(budget=1e19), bootstrap=0)
    assert fit.status == "not_identified"
    assert "Add runs at two or more other budgets" in str(fit.warnings[-1])


def test_without_resamples_there_is_no_interval_to_show():
    assert "nan" not in str(snb.fit_isoflop(noisy(), bootstrap=0))
    assert "nan" not in repr(snb.fit_isoflop(noisy(), bootstrap=0))
