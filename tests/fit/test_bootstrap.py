from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from referee import needs_referee, reference, table

from scaling_nb import ChinchillaLaw, RunTable, fit_law
from scaling_nb.errors import FitError
from scaling_nb.fit.bootstrap import multiplicities, resampling_groups
from scaling_nb.fit.compute import SIX_ND
from scaling_nb.fit.frontier import optimum

LAW = ChinchillaLaw()
TRUE = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}


def runs(rng, *, n=60, noise=0.005, groups=0):
    sizes, tokens = 10 ** rng.uniform(7, 9.5, n), 10 ** rng.uniform(9, 11, n)
    error = noise * rng.standard_normal(n)
    columns = {}
    if groups:
        member = np.arange(n) % groups
        sizes = 10 ** np.linspace(7, 9.5, groups)[member]
        error = noise * rng.standard_normal(groups)[member]
        columns["group"] = [f"trunk-{g}" for g in member]
    loss = LAW.predict(TRUE, sizes, tokens) * np.exp(error)
    return RunTable.from_frame(pd.DataFrame({"N": sizes, "D": tokens, "loss": loss, **columns}))


def test_every_resample_draws_as_many_runs_as_there_are():
    counts = multiplicities(7, None, 50, np.random.RandomState(0))
    assert counts.shape == (50, 7)
    assert np.all(counts.sum(axis=1) == 7)


def test_a_group_is_drawn_as_a_whole():
    groups = np.array([0, 0, 1, 1, 1, 2])
    counts = multiplicities(6, groups, 50, np.random.RandomState(0))
    assert np.all(counts[:, 0] == counts[:, 1])
    assert np.all(counts[:, [0, 2, 5]].sum(axis=1) == 3)


def test_groups_are_used_where_there_are_some():
    rng = np.random.default_rng(0)
    assert resampling_groups(runs(rng), "auto") is None
    assert resampling_groups(runs(rng, groups=3), "auto") is None
    grouped = runs(rng, groups=8)
    assert len(np.unique(resampling_groups(grouped, "auto"))) == 8
    assert resampling_groups(grouped, "runs") is None


def test_any_column_can_name_the_groups():
    table = runs(np.random.default_rng(0), n=60)
    seeded = replace(table, columns={**table.columns, "seed": np.arange(60.0) % 6})
    assert len(np.unique(resampling_groups(seeded, "seed"))) == 6
    assert fit_law(seeded, bootstrap=20, by="seed").resampled == "groups"
    with pytest.raises(FitError, match="some runs have none"):
        resampling_groups(table, "seed")
    with pytest.raises(FitError, match="all runs have 'finished'"):
        resampling_groups(table, "status")
    with pytest.raises(FitError, match="unknown. Use 'auto'.*seed"):
        resampling_groups(table, "trunks")


def test_runs_that_share_their_error_have_wider_intervals_by_group():
    grouped = runs(np.random.default_rng(1), n=96, groups=8)
    by_run, by_group = (fit_law(grouped, bootstrap=300, by=by) for by in ("runs", "groups"))
    assert by_group.resampled == "groups"
    assert by_group.params == by_run.params
    wide, narrow = (np.ptp(fit.intervals["alpha"]) for fit in (by_group, by_run))
    assert wide > 1.3 * narrow


def test_the_same_seed_gives_the_same_interval():
    base = runs(np.random.default_rng(2))
    one, two, other = (fit_law(base, bootstrap=40, seed=s) for s in (1, 1, 2))
    assert one.intervals == two.intervals
    assert one.intervals != other.intervals


def test_resamples_are_optima_of_their_own_weights():
    base = runs(np.random.default_rng(3))
    fit = fit_law(base, bootstrap=5, seed=9)
    counts = multiplicities(len(base), None, 5, np.random.RandomState(9))
    for sample, weights in zip(fit.samples, counts, strict=True):
        again = fit_law(base, weights=weights, bootstrap=0)
        found = dict(zip(LAW.param_names, sample, strict=True))
        assert found == pytest.approx(dict(again.params), rel=1e-4)


@needs_referee
def test_epochs_published_standard_errors():
    fit = fit_law(table("epoch_chinchilla_240"), bootstrap=4000, seed=42)
    published = reference()["_meta"]["published"]["epoch"]["se"]
    for name, error in zip(LAW.param_names, fit.samples.std(axis=0), strict=True):
        assert error == pytest.approx(published[name], rel=5e-3)


@needs_referee
def test_percentiles_agree_with_the_reference():
    fit = fit_law(table("llama3_raw_loss"), bootstrap=1000)
    expected = reference()["llama3_raw_loss"]["huber_1e-3"]["boot"]
    for name, (low, high) in fit.intervals.items():
        width = expected[name]["p95"] - expected[name]["p5"]
        assert low == pytest.approx(expected[name]["p5"], abs=0.15 * width)
        assert high == pytest.approx(expected[name]["p95"], abs=0.15 * width)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["log-huber", "mse"])
def test_ninety_per_cent_intervals_cover_ninety_per_cent(objective):
    """96 runs, 0.5 % noise, 400 repeats: the Monte Carlo error of a coverage is 1.5 %."""
    sizes, tokens = [], []
    for budget in np.geomspace(1e18, 1e21, 8):
        n = float(optimum(LAW, TRUE, budget, SIX_ND)[0]) * np.exp(np.linspace(-1.6, 1.6, 12))
        sizes.append(n)
        tokens.append(budget / 6 / n)
    n, d = np.concatenate(sizes), np.concatenate(tokens)
    exact = LAW.predict(TRUE, n, d)
    target = 1e22
    n_star = float(optimum(LAW, TRUE, target, SIX_ND)[0])
    truth = {
        **TRUE,
        "exponent_N": TRUE["beta"] / (TRUE["alpha"] + TRUE["beta"]),
        "n_params": n_star,
        "loss": float(LAW.predict(TRUE, n_star, target / 6 / n_star)),
    }
    hits = dict.fromkeys(truth, 0)
    rng = np.random.default_rng(11)
    repeats = 400
    for seed in range(repeats):
        noise = rng.standard_normal(len(n))
        # Each objective under the noise it assumes: relative, or of one size.
        loss = exact * np.exp(0.005 * noise) if objective == "log-huber" else exact + 0.012 * noise
        frame = pd.DataFrame({"N": n, "D": d, "loss": loss})
        fit = fit_law(frame, objective=objective, bootstrap=300, seed=seed)
        answer = fit.allocate(target)
        found = {**fit.intervals, "exponent_N": fit.exponent_N_interval, **answer.intervals}
        for name, value in truth.items():
            low, high = found[name]
            hits[name] += low <= value <= high
    for name, count in hits.items():
        assert 0.85 <= count / repeats <= 0.95, (name, count / repeats)


def covered(found: tuple[float, float], value: float) -> bool:
    return found[0] <= value <= found[1]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["log-huber", "mse"])
def test_answers_and_profiles_cover_too(objective):
    """D*, tokens per parameter, and the profiles of E and a: 300 tables of 96 runs."""
    budgets = np.repeat(np.geomspace(1e18, 1e21, 8), 12)
    best = np.asarray(optimum(LAW, TRUE, budgets, SIX_ND)[0], float)
    n = best * np.exp(np.tile(np.linspace(-1.6, 1.6, 12), 8))
    d = budgets / 6 / n
    exact = LAW.predict(TRUE, n, d)
    target = 1e22
    n_star, d_star = (float(x) for x in optimum(LAW, TRUE, target, SIX_ND))
    hits = dict.fromkeys(("n_tokens", "tokens_per_param", "profile of E", "profile of a"), 0)
    rng = np.random.default_rng(21)
    repeats = 300
    for seed in range(repeats):
        noise = rng.standard_normal(len(n))
        loss = exact * np.exp(0.005 * noise) if objective == "log-huber" else exact + 0.012 * noise
        frame = pd.DataFrame({"N": n, "D": d, "loss": loss})
        fit = fit_law(frame, objective=objective, bootstrap=300, seed=seed)
        answer = fit.allocate(target)
        hits["n_tokens"] += covered(answer.intervals["n_tokens"], d_star)
        hits["tokens_per_param"] += covered(answer.intervals["tokens_per_param"], d_star / n_star)
        hits["profile of E"] += covered(fit.profile_intervals["E"], TRUE["E"])
        a = TRUE["beta"] / (TRUE["alpha"] + TRUE["beta"])
        hits["profile of a"] += covered(fit.profile_intervals["exponent_N"], a)
    for name, count in hits.items():
        assert 0.85 <= count / repeats <= 0.95, (name, count / repeats)


@pytest.mark.slow
def test_resampled_groups_cover_where_single_runs_do_not():
    """Forty trunks whose cells share an error: runs say too narrow an interval, groups do not."""
    trunks = np.repeat(np.arange(40), 4)
    sizes = np.tile(np.geomspace(3e7, 3e9, 10), 4)
    tokens = np.geomspace(1e9, 1e11, 4)
    n, d = sizes[trunks], np.tile(tokens, 40)
    exact = LAW.predict(TRUE, n, d)
    hits = dict.fromkeys(("runs", "groups"), 0)
    rng = np.random.default_rng(31)
    repeats = 200
    for seed in range(repeats):
        shared = rng.standard_normal(40)[trunks]
        noise = 0.006 * shared + 0.002 * rng.standard_normal(len(n))
        frame = pd.DataFrame(
            {"N": n, "D": d, "loss": exact * np.exp(noise), "group": trunks.astype(str)}
        )
        for by in hits:
            fit = fit_law(frame, bootstrap=300, by=by, seed=seed)
            hits[by] += covered(fit.intervals["alpha"], TRUE["alpha"])
    assert 0.83 <= hits["groups"] / repeats <= 0.97, hits
    assert hits["runs"] < hits["groups"] - 0.1 * repeats, hits
