"""The command that the README gives: real training, on real text."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from scaling_nb import RunTable, fit_isoflop, quickstart_plan, quickstart_recipe

BUDGETS = ["2e9", "4e9"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "scaling_nb", *words]


def quickstart(folder, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("quickstart", "--quick", "--out", str(folder), "--budgets", *BUDGETS, *words),
        capture_output=True,
        check=False,
        text=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    return folder, quickstart(folder)


def test_it_answers(finished):
    _, done = finished
    assert done.returncode == 0, done.stderr
    assert "stdlib-text: standard library of CPython" in done.stdout
    assert "Approach 2 (IsoFLOP parabolas)" in done.stdout
    assert "coarse" in done.stdout
    assert "ETA" in done.stderr


def test_it_writes_what_it_says(finished):
    folder, done = finished
    for name in ("runs.db", "runs.csv", "report.html"):
        assert (folder / name).stat().st_size > 0
        assert name == "runs.db" or f"wrote {folder / name}" in done.stdout
    table = RunTable.from_csv(folder / "runs.csv")
    assert len(table) == 7
    assert (table.L < 3.6).all()
    fit = fit_isoflop(table)
    assert (folder / "allocation.csv").exists() == (fit.trends is not None)
    if fit.trends is not None:
        row = pd.read_csv(folder / "allocation.csv").iloc[0]
        assert np.isclose(row["n_params"], fit.allocate(row["C"]).n_params)


def test_the_report_needs_no_network(finished):
    folder, _ = finished
    page = (folder / "report.html").read_text()
    assert "<script src=" not in page
    assert 'rel="stylesheet"' not in page
    assert "IsoFLOP curves" in page
    assert "Loss while training" in page


def test_run_again_it_trains_nothing_and_says_the_same(finished):
    folder, done = finished
    before = RunTable.from_csv(folder / "runs.csv").to_frame()
    again = quickstart(folder)
    assert again.returncode == 0
    after = RunTable.from_csv(folder / "runs.csv").to_frame()
    pd.testing.assert_frame_equal(before, after)
    answers = [out.stdout.split("Approach 2")[1].split("took")[0] for out in (done, again)]
    assert answers[0] == answers[1]


def test_ctrl_c_stops_cleanly_and_it_continues_to_the_same_end(finished, tmp_path):
    undisturbed, _ = finished
    out = tmp_path / "out"
    words = command("quickstart", "--quick", "--out", str(out), "--budgets", *BUDGETS)
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    seen = ""
    while " 1/7" not in seen:
        character = process.stderr.read(1)
        assert character, seen
        seen += character
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "of 7 runs are finished and kept" in stdout
    assert f"To go on: python -m scaling_nb quickstart --out {out}" in stdout
    assert quickstart(out).returncode == 0
    results = [
        RunTable.from_csv(f / "runs.csv").to_frame()[["run_id", "N", "D", "C", "loss"]]
        for f in (undisturbed, out)
    ]
    pd.testing.assert_frame_equal(*results)


def test_the_full_plan_is_the_measured_one():
    plan = quickstart_plan(quickstart_recipe())
    cells = {budget: set() for budget in plan.budgets}
    for run in plan.runs:
        cells[run.budget].add(run.size)
    assert cells == {
        2e10: {8, 12, 16, 24, 32, 48},
        4e10: {8, 12, 16, 24, 32, 48, 64},
        8e10: {12, 16, 24, 32, 48, 64},
        1.6e11: {12, 16, 24, 32, 48, 64},
        3.2e11: {16, 24, 32, 48, 64},
    }
    assert plan.reuse == "cooldown"


@pytest.mark.slow
def test_all_minima_are_interior_and_the_answer_is_believable(tmp_path):
    from scaling_nb.api import finished_result, follow
    from scaling_nb.quickstart import quickstart_sweep

    sweep = quickstart_sweep(tmp_path).start()
    follow(sweep, progress=False)
    result = finished_result(sweep)
    assert [m.status for m in result.fit.minima] == ["optimum"] * 5
    # The losses of separately trained runs with other random numbers, as they were first measured.
    best = {2e10: 2.238, 4e10: 2.097, 8e10: 1.982, 1.6e11: 1.876, 3.2e11: 1.734}
    for minimum in result.fit.minima:
        assert minimum.loss < best[minimum.budget] + 0.05
    low, high = result.fit.intervals["exponent_N"]
    assert 0.3 < low < high < 0.9
