"""What is said about the runs themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scaling_nb import ChinchillaLaw, DataConstrainedLaw, PowerLaw, RunTable, fit_law
from scaling_nb.errors import FitError, TooFewRunsError
from scaling_nb.fit.design import check_design, is_collinear

LAW = ChinchillaLaw()
TRUE = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}


def runs(shift: float = 0.0, budgets=(1e18, 1e19, 1e20), **more) -> RunTable:
    sizes, tokens, planned = [], [], []
    for budget in budgets:
        best = np.sqrt(budget / 6 / 12)
        n = best * np.exp(np.linspace(-1.5, 1.5, 7) + shift)
        sizes.append(n)
        tokens.append(budget / 6 / n)
        planned.append(np.full(7, budget))
    n, d = np.concatenate(sizes), np.concatenate(tokens)
    columns = {"N": n, "D": d, "loss": LAW.predict(TRUE, n, d), "budget": np.concatenate(planned)}
    return RunTable.from_frame(pd.DataFrame({**columns, **more}))


def codes(table: RunTable, law=LAW) -> dict[str, str]:
    return {note.code: str(note) for note in check_design(law, table)}


def test_a_good_design_has_nothing_to_say():
    assert codes(runs()) == {}


@pytest.mark.parametrize(
    ("shift", "side", "remedy"), [(4, "smallest", "smaller"), (-4, "largest", "larger")]
)
def test_a_minimum_that_is_not_bracketed(shift, side, remedy):
    notes = [n for n in check_design(LAW, runs(shift)) if n.code == "minimum_not_bracketed"]
    assert len(notes) == 3
    assert side in notes[0].message
    assert f"Add {remedy} models" in notes[0].remedy
    assert notes[0].values["budget"] == 1e18
    edges = notes[0].values["smallest"], notes[0].values["largest"]
    assert notes[0].values["side"] == (-1.0 if side == "smallest" else 1.0)
    assert f"N {'<' if shift > 0 else '>'} {edges[shift < 0]:.3g}" in notes[0].remedy
    assert len(notes[0].run_ids) == 1


def test_n_and_d_in_billions_are_questioned():
    table = runs()
    small = table.columns | {"N": table.N / 1e9, "D": table.D / 1e9}
    told = codes(RunTable(columns=small))["units"]
    assert "N is 5.28 at most and D is" in told
    assert "Give N in parameters" in told


def test_copies_of_runs_are_named_and_repeats_are_not():
    table = runs()
    twice = {k: np.concatenate([v, v[:3]]) for k, v in table.columns.items()}
    twice["run_id"][-3:] = ["x", "y", "z"]
    assert "3 runs equal another" in codes(RunTable(columns=twice))["copies"]
    assert "(x, y, z)" in codes(RunTable(columns=twice))["copies"]
    twice["loss"][-3:] *= 1.001
    assert codes(RunTable(columns=twice)) == {}


def test_two_budgets_test_nothing():
    assert "third budget" in codes(runs(budgets=(1e18, 1e19)))["two_budgets"]


def test_schedules_that_are_mixed():
    told = codes(runs(schedule=["cosine"] * 7 + ["wsd"] * 14))["mixed_schedules"]
    assert "cosine, wsd" in told
    assert "runs.where" in told


def test_conventions_that_are_mixed():
    base = runs()
    n_total = np.where(np.arange(21) < 10, base.N, base.N * 1.4)
    other = np.where(np.arange(21) < 10, base.N * 0.7, base.N)
    table = runs(n_total=n_total, n_non_embedding=other)
    assert "total, non_embedding" in codes(table)["mixed_conventions"]
    assert "mixed_conventions" not in codes(runs(n_total=base.N, n_non_embedding=base.N * 0.7))


def test_a_run_that_stopped_early_is_named():
    base = runs()
    compute = 6 * base.N * base.D
    compute[3] *= 0.5
    table = runs(C=compute)
    note = next(n for n in check_design(LAW, table) if n.code == "stopped_early")
    assert note.run_ids == (table.run_ids[3],)


def test_repeats_are_seen_unless_the_law_knows_them():
    base = runs()
    table = runs(unique_tokens=base.D / np.where(np.arange(21) == 5, 4.0, 1.0))
    assert "up to 4 epochs" in codes(table)["repeated_data"]
    assert "repeated_data" not in codes(table, DataConstrainedLaw())


def test_compute_that_is_not_six_nd():
    base = runs()
    table = runs(C=1.3 * 6 * base.N * base.D, budget=np.full(21, np.nan))
    told = codes(table)["compute_differs_from_6nd"]
    assert "1.3 times" in told
    assert "flops='counted'" in told


def test_a_fixed_ratio_of_tokens_to_parameters_is_never_converged():
    n = np.geomspace(1e7, 1e10, 20)
    rng = np.random.default_rng(0)
    assert is_collinear(n, 20 * n)
    assert not is_collinear(runs().N, runs().D)
    loss = LAW.predict(TRUE, n, 20 * n) * np.exp(0.005 * rng.standard_normal(20))
    fit = fit_law(pd.DataFrame({"N": n, "D": 20 * n, "loss": loss}), bootstrap=0)
    assert fit.status == "not_identified"
    (note,) = [w for w in fit.warnings if w.code == "collinear_design"]
    assert "other D/N" in note.remedy


def test_runs_without_a_loss_are_left_out_by_name():
    rows = list(runs())
    rows[4] = replace(rows[4], loss=float("nan"), status="diverged")
    table = RunTable.from_runs(rows)
    fit = fit_law(table, bootstrap=0)
    assert fit.n_runs == 20
    (note,) = [w for w in fit.warnings if w.code == "left_out"]
    assert note.run_ids == (rows[4].run_id,)
    assert rows[4].run_id in fit.runs.exclusions


def test_three_trunks_are_too_few_to_resample():
    told = codes(runs(group=[f"trunk-{i % 3}" for i in range(21)]))["few_groups"]
    assert "3 groups" in told
    assert "few_groups" not in codes(runs(group=[f"trunk-{i % 7}" for i in range(21)]))


def test_the_worth_of_repeats_needs_repeats():
    with pytest.raises(TooFewRunsError, match="no run repeats its data.*unique_tokens"):
        fit_law(runs(), DataConstrainedLaw(), bootstrap=0)
    held = fit_law(runs(), DataConstrainedLaw(), bootstrap=0,
                   fixed={"R_D_star": 15.4, "R_N_star": 5.3})  # fmt: skip
    assert held.params["R_D_star"] == pytest.approx(15.4)


def test_one_budget_is_refused_by_plan_or_by_count():
    n = np.geomspace(1e8, 4e9, 12)
    d = 1e20 / 6 / n * (n / 6e8) ** 0.4
    one = pd.DataFrame({"N": n, "D": d, "loss": LAW.predict(TRUE, n, d)})
    assert np.ptp(np.log(n * d)) > np.log(3)
    for column in ("C", "budget"):
        for bootstrap in (0, 100):
            with pytest.raises(TooFewRunsError, match=rf"one compute budget \({column}"):
                fit_law(one.assign(**{column: 1e20}), bootstrap=bootstrap)
    assert fit_law(one.assign(C=6 * n * d), bootstrap=0).n_runs == 12


def test_only_runs_with_weight_count():
    table = runs()
    weights = np.zeros(len(table))
    weights[[0, 5, 9, 13, 20]] = 1.0
    fit = fit_law(table, weights=weights, bootstrap=50)
    assert fit.n_runs == 5
    assert fit.status == "not_identified"
    assert "no_spare_runs" in {w.code for w in fit.warnings}
    weights[0] = 0.0
    with pytest.raises(TooFewRunsError, match="only 4 runs count"):
        fit_law(table, weights=weights, bootstrap=0)
    on_a_line = np.isin(np.arange(21), [3, 10, 17]).astype(float)
    with pytest.raises(TooFewRunsError):
        fit_law(table, weights=on_a_line, bootstrap=0)


def test_counted_flops_silence_the_remedy_that_asks_for_them():
    table = runs()
    counted = table.to_frame().assign(C=7.5 * table.N * table.D)
    told = {w.code for w in fit_law(counted, bootstrap=0).warnings}
    assert "compute_differs_from_6nd" in told
    for flops in ("counted", 7.5):
        told = {w.code for w in fit_law(counted, bootstrap=0, flops=flops).warnings}
        assert "compute_differs_from_6nd" not in told


def test_a_law_of_compute_alone_is_told_that_slices_are_no_frontier():
    told = codes(runs(), PowerLaw("C"))["not_the_frontier"]
    assert "3 budgets of 3 have runs of several sizes" in told
    assert "fit_isoflop(runs).predict(C)" in told
    assert "not_the_frontier" not in codes(runs(), PowerLaw("N"))
    best = RunTable.from_frame(runs().to_frame().loc[[3, 10, 17]])
    assert "not_the_frontier" not in codes(best, PowerLaw("C"))


def test_conventions_by_name_are_parted_and_not_converted():
    table = runs(convention=["total"] * 10 + ["non_embedding"] * 11)
    assert "runs.where(convention=['non_embedding'])" in codes(table)["mixed_conventions"]


@pytest.mark.filterwarnings("ignore::scaling_nb.errors.ScalingWarning")
@pytest.mark.parametrize("scale", [1e-13, 1e13])
def test_losses_in_a_unit_beyond_rounding_are_refused_with_the_factor(scale):
    frame = runs().to_frame()
    with pytest.raises(FitError, match="times as large"):
        fit_law(frame.assign(loss=frame["loss"] * scale))
    near = fit_law(frame.assign(loss=frame["loss"] * 1e-8), bootstrap=0)
    assert near.params["alpha"] == pytest.approx(TRUE["alpha"], rel=1e-6)


def test_only_exponents_are_shared():
    with pytest.raises(FitError, match="A, B cannot share its value"):
        fit_law(runs(), shared=("A", "B"), bootstrap=0)
