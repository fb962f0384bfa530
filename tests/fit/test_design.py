"""What is said about the runs themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planned_runs import LAW, TRUE, runs

from scaling_nb import DataConstrainedLaw, PowerLaw, RunTable, fit_law
from scaling_nb.fit.design import check_design, is_collinear


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


def test_three_trunks_are_too_few_to_resample():
    told = codes(runs(group=[f"trunk-{i % 3}" for i in range(21)]))["few_groups"]
    assert "3 groups" in told
    assert "few_groups" not in codes(runs(group=[f"trunk-{i % 7}" for i in range(21)]))


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
