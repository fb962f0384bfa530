from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling_nb import ChinchillaLaw, fit_law
from scaling_nb.fit.objective import Objective
from scaling_nb.fit.outliers import find_outliers, robust_residuals
from scaling_nb.fit.search import solve
from scaling_nb.laws import Constraints

LAW = ChinchillaLaw()
TRUE = {"E": 1.69, "A": 406.4, "B": 1410.7, "alpha": 0.34, "beta": 0.37}


def sweep(seed: int, *, n_budgets: int = 4, n_sizes: int = 8, noise: float = 0.005) -> pd.DataFrame:
    """Return IsoFLOP runs of a known law."""
    rng = np.random.default_rng(seed)
    budgets = np.repeat(np.geomspace(1e18, 10.0 ** (17 + n_budgets), n_budgets), n_sizes)
    n = np.sqrt(budgets / 120) * np.exp(np.tile(np.linspace(-1.25, 1.25, n_sizes), n_budgets))
    d = budgets / 6 / n
    loss = LAW.predict(TRUE, n, d) * np.exp(noise * rng.standard_normal(len(n)))
    return pd.DataFrame({"N": n, "D": d, "loss": loss, "budget": budgets})


def named(fit) -> set[str]:
    return {i for w in fit.warnings if w.code == "outliers" for i in w.run_ids}


@pytest.mark.parametrize("objective", ["log-huber", "mse"])
def test_three_diverged_runs_are_named_and_no_healthy_one(objective):
    accused, missed = 0, 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        runs = sweep(seed, n_sizes=int(rng.integers(5, 9)), noise=float(rng.choice([0.002, 0.01])))
        rows = rng.choice(len(runs), 3, replace=False)
        runs.loc[rows, "loss"] = rng.uniform(10.1, 13, 3)
        fit = fit_law(runs, objective=objective, bootstrap=0)
        true = {fit.runs.run_ids[i] for i in rows}
        missed += len(true - named(fit))
        accused += len(named(fit) - true)
    assert missed == 0
    assert accused == 0


def test_an_outlier_is_told_with_the_loss_the_others_expect():
    runs = sweep(0)
    expected = runs.loss[7]
    runs.loc[7, "loss"] = 12.0
    (note,) = [w for w in fit_law(runs, objective="mse", bootstrap=0).warnings
               if w.code == "outliers"]  # fmt: skip
    assert note.run_ids == ("run-07",)
    assert "None was dropped" in note.remedy
    told = float(note.message.split("the law says ")[1].split(")")[0])
    assert told == pytest.approx(expected, rel=0.03)


def test_normal_noise_and_exact_runs_have_no_outliers():
    for seed in range(10):
        assert named(fit_law(sweep(seed, noise=0.01), bootstrap=0)) == set()
    assert named(fit_law(sweep(0, noise=0.0), bootstrap=0)) == set()


def test_a_run_of_no_weight_is_not_accused():
    runs = sweep(1)
    runs.loc[3, "loss"] = 20.0
    weights = np.ones(len(runs))
    weights[3] = 0.0
    assert named(fit_law(runs, weights=weights, bootstrap=0)) == set()
    assert len(named(fit_law(runs, bootstrap=0))) == 1


def test_a_bent_fit_is_judged_by_the_law_of_the_others():
    runs = sweep(2, noise=0.002)
    runs.loc[[4, 13, 22], "loss"] = [11.0, 14.0, 25.0]
    inputs = {"N": runs.N.to_numpy(), "D": runs.D.to_numpy()}
    bent = solve(
        LAW, inputs, runs.loss.to_numpy(), Objective("mse"),
        constraints=Constraints(), weight=np.ones(len(runs)),
    )  # fmt: skip
    residual, spread = robust_residuals(bent)
    healthy = np.delete(residual, [4, 13, 22])
    assert spread == pytest.approx(0.002, rel=0.4)
    assert np.abs(healthy).max() < 4 * spread
    assert len(list(find_outliers(bent, [str(i) for i in range(len(runs))]))) == 1


def test_excluding_the_named_runs_silences_the_warning():
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 9.5, 40), 10 ** rng.uniform(9, 11, 40)
    loss = LAW.predict(TRUE, n, d) * np.exp(0.004 * rng.standard_normal(40))
    loss[5] *= 2
    fit = fit_law(pd.DataFrame({"N": n, "D": d, "loss": loss}), bootstrap=0)
    (note,) = fit.warnings
    again = fit_law(fit.runs.exclude(list(note.run_ids), reason="diverged"), bootstrap=0)
    assert again.warnings == ()
