"""Each panel against snapshots and orders, without a browser."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import re
import subprocess
import sys
import threading
from pathlib import Path

import ipywidgets as w
import numpy as np
import pytest
from helpers import tiny_plan

import scaling_nb as snb
from scaling_nb.errors import FitError, RunsError
from scaling_nb.ui.analysis import METHODS, Question, analyse, isoflop_figure
from scaling_nb.ui.answer_panel import AnswerPanel, table_html
from scaling_nb.ui.boards import board_of
from scaling_nb.ui.comms import contained, keep_listening
from scaling_nb.ui.controls import Mirror
from scaling_nb.ui.run_list import rows_of
from scaling_nb.ui.slider import Slider
from scaling_nb.ui.take_away import code_cell, latex, table_budgets
from scaling_nb.ui.wording import answer_html, details_html


@pytest.fixture
def dash(table):
    made = snb.Dashboard(runs=table, target=1e20)
    made.board.settle()
    yield made
    made.close()
    made.board.close()


_TRAINED: dict[str, bytes] = {}


@pytest.fixture
def swept(tiny_recipe, tmp_path, settle):
    """A dashboard whose sweep has ended; it is trained once, and its store copied."""
    path = tmp_path / "runs.db"
    if not _TRAINED:
        plan = tiny_plan(tiny_recipe, (2e6, 4e6))
        sweep = snb.Sweep(tiny_recipe, plan, store=path, executor="inline").start()
        assert sweep.wait(120)
        sweep.store.close()
        _TRAINED["runs.db"] = path.read_bytes()
    path.write_bytes(_TRAINED["runs.db"])
    made = snb.Dashboard(tiny_recipe, store=path)
    settle(lambda: made.sweep is not None and len(made.runs) == len(made.sweep.plan.runs))
    made.board.settle()
    yield made
    made.close()
    made.board.close()


def control(dash, name):
    """Return the control that a person knows by this label."""
    found = [part for part in contained(dash.widget) if getattr(part, "description", None) == name]
    assert len(found) == 1, (name, len(found))
    return found[0]


def test_attributes_are_the_objects_behind_what_is_shown(dash, table):
    direct = snb.fit_isoflop(table)
    assert dash.fit.exponent_N == direct.exponent_N
    assert dash.runs.run_ids == table.run_ids
    assert dash.sweep is None
    assert dash.plan is None
    answer = dash.analysis.answer
    assert answer.n_params == direct.allocate(1e20).n_params


def test_what_a_person_picks_in_the_controls_is_what_is_fitted(dash, settle):
    control(dash, "method").value = METHODS["Approach 3 · least squares"]
    settle(lambda: dash.board.snapshot.question.method == "mse")
    dash.board.settle()
    assert dash.fit.objective == "mse"
    control(dash, "C (FLOP)").value = "3e21"
    settle(lambda: dash.board.snapshot.question.target == 3e21)
    control(dash, "irreducible loss E").value = "fixed"
    settle(lambda: "E" in dash.board.snapshot.question.fixed)
    dash.board.settle()
    settle()
    assert "(held)" in dash.fit_panel._numbers.value
    control(dash, "unique tokens").value = "nonsense"
    settle()
    assert "no positive number" in dash.answer_panel._written.value


def test_where_D_counts_no_tokens_the_panel_says_what_it_counts(table):
    dash = snb.Dashboard(runs=dataclasses.replace(table, unit="images"), target=1e20)
    shown = ""
    for limits, words in (
        ({"max_tokens": 1e9, "inference_tokens": None}, "epochs over 1 B unique images"),
        ({"max_tokens": None, "inference_tokens": 1e12}, "1 T images served"),
    ):
        dash.board.ask(method="log-huber", **limits)
        answer = dash.board.settle().analysis
        said = f"{answer_html(answer)}{details_html(answer)}{table_html(answer)}"
        assert words in said
        assert "images per parameter" in said
        shown += said
    assert control(dash, "unique images")
    assert control(dash, "images to serve")
    shown += f"{dash.train_panel.runs.columns}{isoflop_figure(answer).to_json()}"
    assert not re.search("token", shown, re.IGNORECASE)
    dash.close()
    dash.board.close()


def test_a_sweep_of_rows_is_charted_in_rows(tiny_recipe, tmp_path):
    dash = snb.Dashboard(dataclasses.replace(tiny_recipe, unit="rows"), store=tmp_path / "runs.db")
    drawn = dash.train_panel.loss._drawing.layout
    assert (drawn.xaxis.title.text, drawn.yaxis.title.text) == ("rows seen", "training loss")
    assert ["speed", "D/s", "rows per second just now"] in dash.train_panel.runs.columns
    dash.close()
    dash.board.close()


def test_teaching_by_hand_misfits_and_snaps_back(dash, settle):
    dash.board.ask(method="log-huber")
    best = dash.board.settle().analysis.law
    control(dash, "teaching: by hand").value = True
    settle(lambda: set(dash.board.snapshot.question.fixed) == {"alpha", "beta", "E"})
    control(dash, "α").value = 0.8
    settle(lambda: dash.board.snapshot.question.fixed.get("alpha") == 0.8)
    by_hand = dash.board.settle().analysis
    assert by_hand.law.params["alpha"] == 0.8
    assert by_hand.law.objective_value > 2 * best.objective_value
    settle()
    assert "misfit" in dash.fit_panel._numbers.value
    control(dash, "snap to optimum").click()
    settle(lambda: dash.board.snapshot.question.fixed.get("alpha") != 0.8)
    back = dash.board.settle().analysis
    assert back.law.objective_value < 1.1 * best.objective_value
    control(dash, "teaching: by hand").value = False
    settle(lambda: not dash.board.snapshot.question.fixed)


def test_a_pick_in_the_chart_moves_the_run_and_the_answer(dash, table, say, settle):
    before = dash.analysis.answer.n_params
    run = table.run_ids[2]
    say(dash.train_panel.isoflop, kind="pick", keys=[run], how="click")
    settle(lambda: dash.board.snapshot.runs.exclusions)
    dash.board.settle()
    settle()
    assert dash.analysis.answer.n_params != before
    row = next(r for r in dash.train_panel.runs.rows if r["id"] == run)
    assert (row["state"], row["reason"]) == ("excluded", "clicked in the IsoFLOP chart")
    control(dash, "↶ undo").click()
    settle(lambda: not dash.board.snapshot.runs.exclusions)
    dash.board.settle()
    assert dash.analysis.answer.n_params == before


def test_the_table_orders_by_run_with_a_reason(dash, table, say, settle):
    say(dash.train_panel.runs, verb="exclude", ids=[table.run_ids[0]], reason="bad node")
    settle(lambda: dash.runs.exclusions == {table.run_ids[0]: "bad node"})
    say(dash.train_panel.runs, verb="retry", ids=[table.run_ids[0]])
    say(dash.train_panel.runs, verb="restore", ids=[table.run_ids[0]])
    settle(lambda: dash.runs.exclusions == {})


@pytest.mark.parametrize("method", list(METHODS.values()))
def test_the_code_cell_gives_the_very_same_numbers(dash, table, method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dash.board.exclude(list(table.run_ids[3:5]), 'a "quoted" reason')
    dash.board.ask(method=method, target=2e21)
    if method == "log-huber":
        dash.board.ask(fixed={"E": 1.75}, max_tokens=1e10)
    shown = dash.board.settle().analysis.answer
    assert "wrote" in said_of(dash, "csv")
    names: dict = {}
    exec(dash.code.replace("print(answer)", ""), names)
    again = names["answer"]
    assert again.n_params == pytest.approx(shown.n_params, rel=1e-9)
    assert again.n_tokens == pytest.approx(shown.n_tokens, rel=1e-9)
    assert again.loss == pytest.approx(shown.loss, rel=1e-9)
    for name, (low, high) in shown.intervals.items():
        assert again.intervals[name] == pytest.approx((low, high), rel=1e-6)
    assert names["runs"].exclusions == dash.runs.exclusions


def said_of(dash, form: str) -> str:
    from scaling_nb.ui.answer_panel import write

    return write(dash.board.snapshot, form, Path.cwd(), "test")


def test_what_is_taken_away_stands_alone(dash, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for form in ("csv", "tex", "html"):
        said_of(dash, form)
    page = (tmp_path / "scaling_report.html").read_text()
    assert "Back-test" in page
    assert "1e+20" in page or "1e20" in page
    assert 'src="http' not in page
    assert latex(dash.analysis).startswith("\\begin{tabular}")
    assert 1e20 in table_budgets(dash.analysis)
    back = snb.RunTable.from_csv(tmp_path / "scaling_runs.csv")
    assert np.array_equal(back.L, dash.runs.L)
    assert (tmp_path / "allocation.csv").read_text().count("\n") == 1 + len(
        table_budgets(dash.analysis)
    )


def test_two_dashboards_on_one_sweep_stay_in_step(swept, settle):
    other = snb.Dashboard.watch(swept.sweep)
    assert other.board is swept.board
    run = swept.runs.run_ids[0]
    swept.board.exclude([run], "seen in one")
    settle(lambda: other.runs.exclusions == {run: "seen in one"})
    swept.board.ask(method="mse")
    swept.board.settle()
    settle(lambda: other.fit_panel._method.control.value == "mse")
    other.close()


def test_running_the_cell_again_finds_the_sweep(swept, tiny_recipe):
    again = snb.Dashboard(tiny_recipe, store=swept.sweep.store.path)
    assert again.sweep is swept.sweep
    again.close()


def test_a_restarted_kernel_finds_the_runs_in_the_store(swept, tiny_recipe, monkeypatch):
    from scaling_nb.ui import boards

    n = len(swept.runs)
    swept.sweep.store.flush()
    monkeypatch.setattr(boards, "_BOARDS", [])
    again = snb.Dashboard.open(swept.sweep.store.path, tiny_recipe)
    assert again.sweep is not swept.sweep
    assert again.sweep.executor.name == swept.sweep.executor.name == "inline"
    assert len(again.runs) == n
    assert again.wait(0)
    again.close()
    again.board.close()


def test_rows_say_where_every_run_stands(swept):
    rows = rows_of(swept.board.snapshot)
    assert [row["id"] for row in rows] == [run.run_id for run in swept.sweep.plan.runs]
    assert {row["state"] for row in rows} == {"finished"}
    losses = {run.run_id: run.loss for run in swept.runs}
    for row in rows:
        assert row["loss"] == pytest.approx(losses[row["id"]], rel=1e-4)
        assert row["progress"] == 1.0


def test_buttons_offer_what_can_be_done(swept):
    assert control(swept, "pause").disabled
    assert control(swept, "stop").disabled
    assert control(swept, "start").disabled
    assert swept.train_panel.status.done == swept.train_panel.status.total > 0
    assert "runs done" in swept.train_panel.status.said


def test_the_loss_chart_alone_shows_the_past(swept, settle):
    chart = snb.LossChart(swept.sweep)
    settle(lambda: chart.chart.n_drawn == len(swept.sweep.plan.runs))
    for run in swept.sweep.plan.runs:
        tokens, loss = swept.sweep.curve(run.run_id)
        x, y, _ = chart.chart.points[run.run_id]
        assert x[-1] == tokens[-1]
        assert y[-1] == pytest.approx(loss[-1])
    chart.close()


def test_the_fit_panel_alone_takes_a_table(table, settle, say):
    panel = snb.FitPanel(table)
    panel.board.settle()
    settle(lambda: panel._analysis is not None and panel._analysis.final)
    assert "a = <b>" in panel._numbers.value
    say(panel.isoflop, kind="pick", keys=[table.run_ids[0]], how="lasso")
    settle(lambda: panel.board.snapshot.runs.exclusions)
    panel.close()
    panel.board.close()


def test_the_plan_panel_alone_plans_as_one_drags(tiny_recipe, settle):
    panel = snb.PlanPanel(tiny_recipe)
    panel.board.settle()
    settle()
    assert "runs" in panel._summary.value
    panel._typed.control.value = "4e6, 8e6"
    settle(lambda: panel.board.snapshot.plan.budgets == (4e6, 8e6))
    panel._typed.control.value = "nothing"
    settle()
    assert "are no budgets" in panel._problem.value
    assert panel.board.snapshot.plan is None  # or it could be started under a text that is not it
    panel._typed.control.value = "4e6, 8e6"
    settle(lambda: panel.board.snapshot.plan is not None)
    assert panel._problem.value == "" or "are no budgets" not in panel._problem.value
    panel._low.control.value = 5e6
    settle(lambda: panel.board.snapshot.plan.budgets[0] == 5e6)
    panel.close()
    panel.board.close()


def test_a_control_is_left_alone_while_a_person_moves_it():
    told = []
    mirror = Mirror(Slider(value=1.0, max=10.0), told.append)
    mirror.control.value = 2.0
    mirror.show(1.0)
    assert mirror.control.value == 2.0
    mirror._moved = 0.0
    mirror.show(3.0)
    assert mirror.control.value == 3.0
    assert told == [2.0]


def test_widgets_are_addressed_as_the_page_addresses_them(dash):
    class Comm:
        def _reply_subshell_for(self, data, default):
            return "a subshell that is gone"

    for part in contained(dash.widget):
        part.comm._reply_subshell_for = Comm()._reply_subshell_for
    keep_listening(dash.widget)
    assert all(part.comm._reply_subshell_for is None for part in contained(dash.widget))


def test_every_control_has_a_name_and_an_explanation(dash):
    for part in contained(dash.widget):
        if isinstance(part, (w.Button, w.ValueWidget)) and not isinstance(part, w.HTML):
            assert part.description, part
            assert part.tooltip, part.description


def test_a_table_needs_no_torch(tmp_path, table):
    table.to_csv(tmp_path / "runs.csv")
    code = (
        "import sys, scaling_nb as snb\n"
        f"dash = snb.Dashboard(runs=snb.RunTable.from_csv({str(tmp_path / 'runs.csv')!r}))\n"
        "assert dash.analysis.answer is not None\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_dashboard_of_nothing_or_of_both_is_refused(table, tiny_recipe):
    with pytest.raises(TypeError, match="recipe to train"):
        snb.Dashboard()
    with pytest.raises(TypeError, match="recipe to train"):
        snb.Dashboard(tiny_recipe, runs=table)
    with pytest.raises(TypeError, match="You gave a str"):
        snb.Dashboard("runs.db")
    with pytest.raises(RunsError, match=r"from_csv\(path\)"):
        snb.Dashboard(runs="runs.csv")
    for target in (-1.0, "1e10", math.nan):
        with pytest.raises(FitError, match="positive, finite number"):
            snb.Dashboard(runs=table, target=target)


def test_a_frame_is_as_good_as_a_table(table):
    dash = snb.Dashboard(runs=table.to_frame(), target=1e20)
    assert len(dash.runs) == len(table)
    assert [row["id"] for row in dash.train_panel.runs.rows] == list(table.run_ids)
    assert dash.train_panel.runs.columns[0][0] == "id"
    dash.close()


def test_the_code_cell_takes_back_what_reading_leaves_out(table, tmp_path):
    frame = table.to_frame()
    frame.loc[3, "status"] = "crashed"
    path = tmp_path / "runs.csv"
    frame.to_csv(path, index=False)
    with pytest.warns(UserWarning, match="status is crashed"):
        read = snb.RunTable.from_csv(path)
    read = read.restore()
    read.to_csv(path)
    names = {}
    with pytest.warns(UserWarning, match="status is crashed"):
        exec(code_cell(read, Question(target=1e20), csv=path), names)
    assert len(names["runs"]) == len(read) == len(table)


def test_what_is_held_by_hand_is_said(table):
    held = analyse(table, Question(method="log-huber", fixed={"E": 1.0}), quick=False)
    (note,) = [note for note in held.warnings if note.code == "held_by_hand"]
    assert "E = 1 is held by hand" in str(note)
    free = analyse(table, Question(method="log-huber"), quick=False)
    assert "held_by_hand" not in {note.code for note in free.warnings}


def test_a_target_below_the_runs_is_no_target_within_them(table):
    def details(target):
        return details_html(analyse(table, Question(target=target), quick=True))

    low, high = float(table.C.min()), float(table.C.max())
    assert "below the smallest run" in details(low / 50)
    assert "within the compute of the runs" in details((low * high) ** 0.5)
    assert "beyond the largest run" in details(5 * high)
    answer = analyse(table, Question(target=low / 50), quick=True).answer
    assert "50 times less than the compute of the smallest run" in " ".join(map(str, answer.notes))


def test_a_few_resamples_come_first_and_agree(table):
    quick, final = (analyse(table, Question(), quick=q) for q in (True, False))
    assert quick.answer.n_params == final.answer.n_params
    assert not quick.final
    assert final.backtest is not None
    assert set(final.figures) == {"isoflop", "frontier", "residuals"}


def test_the_code_cell_names_what_was_left_out(table):
    code = code_cell(table.exclude(table.run_ids[:1], reason="spike"), Question(target=1e20))
    assert f"runs.exclude(['{table.run_ids[0]}'], reason='spike')" in code
    assert code.splitlines()[-1] == "print(answer)"


def test_a_box_may_be_ticked_back_to_what_it_was():
    told = []
    mirror = Mirror(w.Checkbox(value=False), told.append)
    mirror.show(True)
    mirror.control.value = False
    assert told == [False]


def test_a_sweep_that_is_started_in_python_is_watched(tiny_recipe, tmp_path, settle):
    plan = tiny_plan(tiny_recipe, (2e6,))
    sweep = snb.Sweep(tiny_recipe, plan, store=tmp_path / "runs.db")
    dash = snb.Dashboard.watch(sweep)
    settle(lambda: dash.train_panel.status.text.startswith(f"0/{len(plan.runs)} runs"))
    sweep.start()
    # In a thread of its own: a test with a browser may have left a loop in this one.
    ending = threading.Thread(target=lambda: asyncio.run(dash.finished()))
    ending.start()
    ending.join(60)
    assert not ending.is_alive()
    settle(lambda: "finished" in dash.train_panel.status.text)
    assert len(dash.runs) == len(plan.runs)
    dash.close()
    dash.board.close()


def test_an_answer_of_other_runs_says_so_until_the_new_one_is_there(table, settle):
    board = board_of(table)
    fitted = board.settle()
    panel = AnswerPanel(board)
    settle()
    more = table.exclude(table.run_ids[:3], reason="late")
    panel.update(dataclasses.replace(fitted, runs=more))
    assert "of 24 runs</b>, fitting 21" in panel._details.value
    panel.update(fitted)
    assert "fitting" not in panel._details.value
    panel.close()
    board.close()


def test_a_closed_dashboard_sends_nothing_more(dash, table, settle):
    other = snb.Dashboard.__new__(snb.Dashboard)
    other._build(dash.board)
    settle()
    chart = other.train_panel.isoflop
    other.close()
    settle()
    sent = len(chart.comm.sent) if chart.comm is not None else 0
    dash.board.exclude([table.run_ids[0]], "x")
    dash.board.settle()
    settle()
    assert (len(chart.comm.sent) if chart.comm is not None else 0) == sent
