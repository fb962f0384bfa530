from __future__ import annotations

import numpy as np
import pytest

import scaling_nb as snb
from scaling_nb.errors import PlanError
from scaling_nb.records import COLUMNS
from scaling_nb.simulation import (
    FixedRatioDesign,
    GridDesign,
    IsoFlopDesign,
    RandomDesign,
    simulate_curves,
)

LAW = snb.published["besiroglu_2024"]
DESIGNS = [
    IsoFlopDesign(budgets=(1e18, 1e19)),
    RandomDesign(n_runs=20),
    GridDesign(n_params=(1e8, 1e9), n_tokens=(1e10, 1e11, 1e12)),
    FixedRatioDesign(n_params=(1e8, 1e9, 1e10)),
]


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: type(d).__name__)
def test_without_noise_runs_lie_on_the_law(design):
    runs = snb.simulate(LAW, design)
    assert tuple(runs.columns) == COLUMNS
    np.testing.assert_allclose(runs.L, LAW.predict(runs.N, runs.D))
    np.testing.assert_allclose(runs.C, 6 * runs.N * runs.D)
    assert len(set(runs.run_ids)) == len(runs)


def test_a_bare_law_takes_its_parameters():
    runs = snb.simulate(snb.ChinchillaLaw(), DESIGNS[1], params=LAW.params)
    np.testing.assert_allclose(runs.L, snb.simulate(LAW, DESIGNS[1]).L)
    with pytest.raises(PlanError, match="alone has no numbers"):
        snb.simulate(snb.ChinchillaLaw(), DESIGNS[1])
    with pytest.raises(PlanError, match="no numbers for A, B, alpha, beta"):
        snb.simulate(snb.ChinchillaLaw(), DESIGNS[1], params={"E": 1.0})


def test_an_isoflop_design_spends_its_budgets():
    runs = snb.simulate(LAW, IsoFlopDesign(budgets=(1e18, 1e20), n_sizes=5, span=9.0))
    np.testing.assert_allclose(runs.C, runs.column("budget"))
    for budget in (1e18, 1e20):
        n = runs.where(budget=budget).N
        assert len(n) == 5
        assert n.max() / n.min() == pytest.approx(9.0)
        assert np.sqrt(n.max() * n.min()) == pytest.approx(np.sqrt(budget / 120), rel=0.35)


def test_noise_has_the_asked_size_and_follows_the_seed():
    design = RandomDesign(n_runs=4000)
    clean, noisy, again = (snb.simulate(LAW, design, noise, 1) for noise in (0.0, 0.02, 0.02))
    assert np.std(np.log(noisy.L / clean.L)) == pytest.approx(0.02, rel=0.05)
    np.testing.assert_array_equal(noisy.L, again.L)
    assert not np.array_equal(noisy.L, snb.simulate(LAW, design, 0.02, 2).L)


def test_cells_of_one_trunk_share_their_noise():
    design = IsoFlopDesign(budgets=(1e18, 2e18, 4e18))
    clean = snb.simulate(LAW, design)
    runs = snb.simulate(LAW, design, 0.0, 1, trunk_noise=0.01, seeds=2)
    error = np.log(runs.L) - np.log(np.tile(clean.L, 2))
    groups = runs.column("group")
    assert 1 < len(set(groups)) < len(runs)
    for group in set(groups):
        rows = groups == group
        assert np.ptp(error[rows]) < 1e-12
        assert len(set(runs.column("seed")[rows])) == 1
        assert np.ptp(np.log(runs.N[rows])) < 1e-9
    assert np.std(error) > 0.003


def test_seeds_repeat_every_cell():
    runs = snb.simulate(LAW, DESIGNS[2], 0.01, 0, seeds=3)
    assert len(runs) == 18
    assert sorted(set(runs.column("seed"))) == [0, 1, 2]


@pytest.mark.parametrize("options", [{"noise": -1.0}, {"trunk_noise": -1.0}, {"seeds": 0}])
def test_options_are_checked(options):
    with pytest.raises(PlanError):
        snb.simulate(LAW, DESIGNS[1], **options)


def test_an_empty_design_is_refused():
    with pytest.raises(PlanError, match="has no runs"):
        IsoFlopDesign(budgets=())


def test_curves_follow_the_law():
    small, large = simulate_curves(LAW, [1e8, 1e9], 1e11, points=50)
    np.testing.assert_allclose(small.loss, LAW.predict(np.full(50, 1e8), small.tokens))
    np.testing.assert_allclose(large.flops, 6e9 * large.tokens)
    assert small.decayed
