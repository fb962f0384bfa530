"""What must not happen to a person at the panel: silence, another number, another plan."""

from __future__ import annotations

import dataclasses
import logging
import math

import ipywidgets as w
import numpy as np
import pytest
from helpers import tiny_plan

import scaling_nb as snb
from scaling_nb.fit import FitWarning
from scaling_nb.ui import boards
from scaling_nb.ui.analysis import Question, analyse
from scaling_nb.ui.board import Board
from scaling_nb.ui.choices import PlanChoice, make_plan, remedy_for
from scaling_nb.ui.comms import contained
from scaling_nb.ui.controls import Mirror
from scaling_nb.ui.exclusions import Exclusions
from scaling_nb.ui.plan_panel import energy_text
from scaling_nb.ui.run_list import rows_of
from scaling_nb.ui.slider import Slider
from scaling_nb.ui.wording import answer_text, details_html, in_controls, wants_approach_3


@pytest.fixture
def board(table):
    made = Board(runs=table)
    made.settle()
    yield made
    made.close()


@pytest.fixture
def planned(tiny_recipe, tmp_path):
    """A dashboard with a plan that has not been started."""
    plan = tiny_plan(tiny_recipe, (2e6, 4e6))
    dash = snb.Dashboard(tiny_recipe, plan=plan, store=tmp_path / "runs.db")
    dash.board.settle()
    yield dash
    if dash.sweep is not None and dash.board.snapshot.alive:
        dash.sweep.cancel()
        assert dash.sweep.wait(60)
    dash.close()
    dash.board.close()


def control(dash, name):
    found = [part for part in contained(dash.widget) if getattr(part, "description", None) == name]
    assert len(found) == 1, (name, len(found))
    return found[0]


@pytest.mark.parametrize("side", ["smaller", "larger"])
@pytest.mark.parametrize("method", ["isoflop", "log-huber"])
def test_the_warnings_of_real_fits_have_a_remedy_on_the_right_side(tiny_recipe, side, method):
    recipe = dataclasses.replace(tiny_recipe, sizes=[8, 16, 32])
    plan = tiny_plan(recipe, (4e6, 8e6, 1.6e7))
    sign = 1.0 if side == "smaller" else -1.0
    runs = snb.RunTable.from_runs(
        snb.Run(
            run_id=run.run_id, N=run.n_params, D=run.n_tokens, C=run.compute, budget=run.budget,
            loss=2.0 + sign * 0.1 * np.log(run.n_params) - 1e-8 * run.n_tokens,
        )
        for run in plan.runs
    )  # fmt: skip
    found = analyse(runs, Question(method=method), quick=True)
    fit = found.iso if method == "isoflop" else found.law
    notes = fit.warnings if fit is not None else snb.fit_law(runs, bootstrap=0).warnings
    notes = [note for note in notes if note.code == "minimum_not_bracketed"]
    if method == "isoflop" and fit is None:
        pytest.fail("the parabolas gave no warnings")
    assert notes
    for note in notes:
        remedy = remedy_for(note, plan)
        if remedy is not None:
            assert remedy.label.endswith(side)
    assert any(remedy_for(note, plan) is not None for note in notes)


def test_a_listener_that_fails_does_not_keep_the_others_from_what_happens(
    board, table, settle, caplog
):
    def fails(snapshot):
        raise KeyError("smallest")

    heard = []
    with caplog.at_level(logging.CRITICAL):
        board.attach(fails)
        board.attach(heard.append)
        board.exclude([table.run_ids[0]], "x")
        board.settle()
        settle()
    assert heard[-1].runs.exclusions


def log_slider(**traits):
    return Slider(value=1e12, min=9, max=16, step=0.02, decades=True, **traits)


def test_a_value_outside_a_controls_range_is_shown_as_it_is():
    for made, value in (
        (log_slider(), 1e3),
        (log_slider(), 1e30),
        (Slider(value=1.0, min=0.0, max=4.0), 5.89),
        (Slider(value=0.35, min=0.05, max=1.5), 0.01),
        (w.BoundedIntText(value=1, min=1, max=10), 21),
    ):
        told = []
        mirror = Mirror(made, told.append)
        mirror.show(value)
        assert mirror.control.value == value
        assert told == []
        at = math.log10(value) if isinstance(made, Slider) and made.decades else value
        assert made.min <= at <= made.max


def test_a_sliders_range_is_centred_on_what_it_shows():
    mirror = Mirror(log_slider(around=3.0), lambda _: None)
    mirror.show(2e7)
    assert (mirror.control.min, mirror.control.max) == (4, 11)
    mirror.show(3e7)
    assert (mirror.control.min, mirror.control.max) == (4, 11)
    mirror.show(1e14)
    assert (mirror.control.min, mirror.control.max) == (11, 17)


def test_a_value_beyond_new_ends_moves_with_them():
    slider = log_slider()
    slider.bound(13, 14)
    assert (slider.min, slider.max, slider.value) == (13, 14, pytest.approx(1e13))
    slider.bound(12.5, 15)
    assert slider.value == pytest.approx(1e13)
    slider.bound(3, 4)
    assert slider.value == pytest.approx(1e4)


def test_a_sliders_range_and_value_arrive_together():
    slider = log_slider(around=3.0)
    slider.comm.sent.clear()
    slider.put(1e30)
    (said,) = [data["state"] for data, _ in slider.comm.sent if data.get("method") == "update"]
    assert said == {"min": 27.0, "max": 33.0, "value": 1e30}


def test_an_impossible_choice_leaves_nothing_to_start(planned, settle):
    planned.board.choose(budgets=(1e3,))
    settle(lambda: bool(planned.board.snapshot.plan_problem))
    assert control(planned, "start").disabled
    assert planned.plan is None
    assert "runs" not in planned.plan_panel._summary.value
    assert planned.plan_panel._table.value == ""
    planned.start()
    settle()
    assert planned.sweep is None
    assert "feasible" in planned.board.snapshot.refusal
    planned.board.choose(budgets=(4e6,))
    settle(lambda: planned.board.snapshot.plan is not None)
    assert not control(planned, "start").disabled


@pytest.mark.parametrize("executor", ["nonsense", "fails"])
def test_a_refusal_stands_beside_the_buttons_and_is_said(
    planned, settle, executor, monkeypatch, caplog
):
    if executor == "fails":

        def fail(*_, **__):
            raise OSError("no such device")

        monkeypatch.setattr("scaling_nb.sweep.make_executor", fail)
    planned.board.executor = executor
    with caplog.at_level(logging.CRITICAL):
        control(planned, "start").click()
        settle(lambda: bool(planned.board.snapshot.refusal))
    said = "nonsense" if executor == "nonsense" else "no such device"
    assert said in planned.train_panel._refused.value
    assert "snb-warn" in planned.train_panel._refused.value
    assert said in planned.train_panel.status.said
    assert planned.wait(0) is False
    planned.board.exclude(["nobody"], "x")
    settle(lambda: not planned.board.snapshot.refusal)
    assert planned.train_panel._refused.value == ""


def test_retry_and_skip_by_the_table_and_what_they_refuse(planned, say, settle):
    runs = planned.train_panel.runs
    first = planned.plan.runs[0].run_id
    say(runs, verb="retry", ids=[first])
    settle(lambda: "Press start" in planned.board.snapshot.refusal)
    planned.start()
    assert planned.wait(60)
    settle(lambda: planned.board.snapshot.status.state == "finished")
    say(runs, verb="retry", ids=[first])
    settle(lambda: "is finished" in planned.board.snapshot.refusal)
    assert "is finished" in planned.train_panel._refused.value
    say(runs, verb="skip", ids=[first])
    settle(lambda: "is open" in planned.board.snapshot.refusal)


def test_a_skipped_run_is_trained_after_a_retry(tiny_recipe, tmp_path, say, settle):
    plan = tiny_plan(tiny_recipe, (2e6,))
    sweep = snb.Sweep(tiny_recipe, plan, store=tmp_path / "runs.db")
    dash = snb.Dashboard.watch(sweep)
    run = plan.runs[0].run_id
    say(dash.train_panel.runs, verb="skip", ids=[run])
    settle(lambda: sweep.status().runs[run] == "skipped")
    dash.start()
    assert dash.wait(60)
    assert run not in dash.runs.run_ids
    say(dash.train_panel.runs, verb="retry", ids=[run])
    settle(lambda: run in dash.runs.run_ids)
    dash.close()
    dash.board.close()


def test_the_remedy_button_adds_its_runs_and_trains_them(planned, settle):
    planned.start()
    assert planned.wait(60)
    settle(lambda: planned.board.snapshot.status.state == "finished")
    planned.board.settle()
    n = len(planned.sweep.plan.runs)
    note = FitWarning(
        code="minimum_uncertain", message="m", remedy="r", values={"budget": 4e6, "share": 0.2},
    )  # fmt: skip
    remedy = remedy_for(note, planned.sweep.plan)
    planned.fit_panel._heal_button(remedy).click()
    settle(lambda: len(planned.board.snapshot.sweep.plan.runs) > n)
    assert planned.wait(60)


def test_a_schedule_chosen_in_the_panel_is_found_again(planned, tiny_recipe, settle, monkeypatch):
    control(planned, "schedule").value = "cosine"
    settle(lambda: planned.board.snapshot.choice.schedule == "cosine")
    planned.start()
    assert planned.wait(60)
    settle(lambda: len(planned.runs) == len(planned.sweep.plan.runs))
    planned.board.ask(method="log-huber", fixed={"E": 0.5}, target=3e9, inference_tokens=1e6)
    planned.board.settle()
    store = planned.sweep.store
    store.flush()
    assert snb.Dashboard(tiny_recipe, store=store.path).sweep is planned.sweep
    monkeypatch.setattr(boards, "_BOARDS", [])
    again = snb.Dashboard.open(store.path, tiny_recipe)
    assert again.sweep.recipe.schedule == "cosine"
    assert len(again.runs) == len(planned.runs)
    question = again.board.snapshot.question
    assert question == planned.board.snapshot.question
    assert question.fixed == {"E": 0.5}
    again.close()
    again.board.close()


def test_a_plan_given_again_after_a_restart_shows_what_its_store_holds(
    planned, tiny_recipe, monkeypatch
):
    planned.start()
    assert planned.wait(60)
    planned.sweep.store.flush()
    monkeypatch.setattr(boards, "_BOARDS", [])
    again = snb.Dashboard(tiny_recipe, plan=planned.plan, store=planned.sweep.store.path)
    assert len(again.runs) == len(planned.plan.runs)
    again.close()
    again.board.close()


def test_another_target_in_the_cell_counts(planned, tiny_recipe, settle):
    planned.start()
    assert planned.wait(60)
    again = snb.Dashboard(tiny_recipe, store=planned.sweep.store.path, target=7e9)
    settle(lambda: again.board.snapshot.question.target == 7e9)
    assert again.board is planned.board
    again.close()


def test_a_reopened_chart_knows_the_seconds_its_runs_took(planned, settle, tiny_recipe):
    planned.start()
    assert planned.wait(60)
    settle(lambda: len(planned.runs) == len(planned.plan.runs))
    chart = snb.LossChart(planned.sweep)
    settle(lambda: chart.chart.n_drawn == len(planned.plan.runs))
    took = dict(zip(planned.runs.run_ids, planned.runs.column("seconds"), strict=True))
    for run_id, (_, _, seconds) in chart.chart.points.items():
        assert np.all(np.diff(seconds) >= 0)
        assert seconds[-1] == pytest.approx(took[run_id], rel=1e-4)
    live = planned.train_panel.loss.chart.points
    assert all(np.isfinite(points[2]).all() for points in live.values())
    assert max(points[2, -1] for points in live.values()) < 60
    chart.close()


def test_planned_runs_are_listed_before_the_start(planned):
    rows = rows_of(planned.board.snapshot)
    assert [row["id"] for row in rows] == [run.run_id for run in planned.plan.runs]
    assert {row["state"] for row in rows} == {"planned"}
    assert planned.train_panel.runs.rows == rows


def test_the_answer_says_what_was_asked_and_what_is_trained(board):
    board.ask(method="log-huber", target=1e20, inference_tokens=1e12)
    s = board.settle()
    a, said = s.analysis.answer, answer_text(s.analysis)
    assert a.compute > 1.05e20
    assert "To reach the loss of C = 1e20 FLOP while serving 1 T tokens: train with" in said
    assert s.sentence.startswith("N* at 1e20 is")
    assert "within 0.5 % of the best loss" not in details_html(s.analysis)
    stars = [t for t in s.analysis.figures["frontier"].data if t.marker.symbol == "star"]
    assert (stars[0].x[0], stars[0].y[0]) == (a.compute, a.n_params)
    rows = s.analysis.asked.chinchilla_table([1e20])
    assert (rows.C[0], rows.n_params[0]) == (a.compute, a.n_params)


def test_all_runs_excluded_leave_no_answer_of_before(table, settle):
    dash = snb.Dashboard(runs=table, target=1e20)
    dash.board.settle()
    dash.board.exclude(table.run_ids, "all bad")
    dash.board.settle()
    settle()
    assert dash.fit is None
    assert "all runs are excluded" in dash.answer_panel._answer.value
    assert dash.answer_panel._table.value == ""
    assert "appears as runs finish" in str(dash.train_panel.frontier._figure)
    drawn = dash.train_panel.isoflop._figure["data"]
    assert [t["name"] for t in drawn if t.get("text")] == ["excluded"]
    dash.board.undo()
    assert dash.board.settle().analysis.answer is not None
    dash.close()
    dash.board.close()


def test_a_lasso_around_excluded_points_takes_them_back(table, say, settle):
    dash = snb.Dashboard(runs=table)
    two = list(table.run_ids[:2])
    for excluded in (2, 0):
        say(dash.train_panel.isoflop, kind="pick", keys=two, how="lasso")
        settle(lambda n=excluded: len(dash.board.snapshot.runs.exclusions) == n)
    assert Exclusions({"a": "spike"}).surrounded(["a", "b"], "lasso") == {
        "a": "spike", "b": "lasso",
    }  # fmt: skip
    dash.close()
    dash.board.close()


def test_what_a_plan_was_asked_for_in_python_is_kept(tiny_recipe):
    plan = tiny_plan(tiny_recipe, (2e6, 4e6), seeds=(3, 5), n_sizes=2)
    choice = PlanChoice.of(plan)
    assert make_plan(tiny_recipe, choice).plan.plan_id == plan.plan_id
    back = snb.SweepPlan.from_dict(plan.to_dict())
    assert back.plan_id == plan.plan_id
    assert PlanChoice.of(back) == choice
    old = {name: value for name, value in plan.to_dict().items() if name != "options"}
    before = snb.SweepPlan.from_dict(old)
    assert before.plan_id == plan.plan_id
    recovered = make_plan(tiny_recipe, dataclasses.replace(PlanChoice.of(before), n_sizes=2)).plan
    assert {r.run_id for r in plan.runs} <= {r.run_id for r in recovered.runs}


def test_a_cancelled_run_is_not_done(planned, settle):
    planned.start()
    planned.sweep.cancel()
    assert planned.wait(60)
    settle(lambda: planned.board.snapshot.status.state in ("cancelled", "finished"))
    s = planned.board.snapshot
    done = sum(v == "finished" for v in s.status.runs.values())
    assert s.n_done == done
    assert f"{done}/{len(planned.plan.runs)} runs" in planned.train_panel.status.text


def test_a_control_of_approach_3_brings_it(table, settle):
    dash = snb.Dashboard(runs=table, target=1e20)
    dash.board.settle()
    control(dash, "tokens to serve").value = "1e12"
    settle(lambda: dash.board.snapshot.question.inference_tokens == 1e12)
    assert dash.board.snapshot.question.method == "log-huber"
    control(dash, "method").value = "isoflop"
    settle(lambda: dash.board.snapshot.question.method == "isoflop")
    assert dash.board.settle().analysis.answer is not None
    control(dash, "teaching: by hand").value = True
    settle(lambda: set(dash.board.snapshot.question.fixed) == {"alpha", "beta", "E"})
    assert dash.board.snapshot.question.method == "log-huber"
    dash.close()
    dash.board.close()


def test_a_typing_error_goes_once_it_is_mended(planned, settle):
    target = control(planned, "target C")
    for wrong in ("nonsense", "-3"):
        target.value = wrong
        settle()
        assert "no positive number" in planned.plan_panel._problem.value
        target.value = "1e12"
        settle(lambda: planned.board.snapshot.question.target == 1e12)
        assert "no positive number" not in planned.plan_panel._problem.value
        planned.board.ask(target=None)
        settle(lambda: planned.board.snapshot.question.target is None)


def test_remedies_speak_of_controls():
    note = FitWarning(
        code="too_few_optima", message="No line.",
        remedy="Bracket the minimum at more budgets, or use fit_law on all runs.",
    )  # fmt: skip
    assert in_controls(str(note)).endswith("or use Approach 3.")
    assert wants_approach_3(note, "isoflop")
    assert not wants_approach_3(note, "mse")


def test_energy_is_in_the_unit_that_reads_best():
    assert [energy_text(kwh) for kwh in (2.0, 0.0058, 5.8e-05)] == ["2 kWh", "5.8 Wh", "58 mWh"]


@pytest.mark.parametrize("name", ["LossChart", "PlanPanel", "FitPanel"])
def test_a_panel_alone_is_shown_with_its_style(name, planned, table, capsys):
    panel = getattr(snb, name)(table if name == "FitPanel" else planned.board)
    frame = panel.frame()
    assert "snb-panel" in frame._dom_classes
    assert panel.widget in frame.children
    assert "<style>" in frame.children[0].value
    panel.close()


@pytest.mark.parametrize(
    "asked",
    [
        {"inference_tokens": 1e12},
        {"fixed": {"alpha": 0.4, "beta": 0.4, "E": 1.7}},
        {"max_tokens": 1e10},
    ],
)
def test_the_code_cell_gives_the_answer_of_every_question(table, tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    dash = snb.Dashboard(runs=table, target=1e20)
    dash.board.ask(method="log-huber", **asked)
    shown = dash.board.settle().analysis.answer
    table.to_csv("scaling_runs.csv")
    names: dict = {}
    exec(dash.code.replace("print(answer)", ""), names)
    for name in ("compute", "n_params", "n_tokens", "loss"):
        assert getattr(names["answer"], name) == pytest.approx(getattr(shown, name), rel=1e-9)
    dash.close()
    dash.board.close()
