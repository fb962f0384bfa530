"""The board without widgets: orders in, snapshots out, with a real sweep of tiny models."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
import torch
from helpers import tiny_plan

import scaling_nb as snb
from scaling_nb.fit import FitWarning
from scaling_nb.ui.analysis import Question, analyse
from scaling_nb.ui.board import Board
from scaling_nb.ui.boards import board_of, board_of_recipe
from scaling_nb.ui.choices import PlanChoice, extended, guess, make_plan, parse, remedy_for
from scaling_nb.ui.snapshot import ALIVE


@pytest.fixture
def board(table):
    made = Board(runs=table)
    made.settle()
    yield made
    made.close()


def test_a_table_is_fitted_and_answered_at_once(board, table):
    s = board.settle()
    direct = snb.fit_isoflop(table)
    assert s.analysis.final
    assert s.analysis.fit.exponent_N == direct.exponent_N
    assert s.analysis.answer.n_params == direct.allocate(3e19).n_params
    assert "24" in str(len(s.runs))
    assert s.sentence.startswith("N* at 3e19 is")


def test_excluding_changes_the_answer_and_undo_brings_it_back(board, table):
    before = board.settle().analysis.answer
    worst = table.run_ids[2]
    board.exclude([worst], "loss spike")
    s = board.settle()
    assert s.runs.exclusions == {worst: "loss spike"}
    assert s.analysis.answer.n_params != before.n_params
    expected = snb.fit_isoflop(table.exclude(worst, reason="loss spike")).allocate(3e19)
    assert s.analysis.answer.n_params == expected.n_params
    board.undo()
    s = board.settle()
    assert s.runs.exclusions == {}
    assert s.analysis.answer.n_params == before.n_params
    board.undo()
    assert board.settle().undo == 0


def test_a_click_takes_a_run_out_and_the_next_one_takes_it_back(board, table):
    run = table.run_ids[0]
    board.toggle([run], "clicked")
    assert board.settle().runs.exclusions == {run: "clicked"}
    board.toggle([run], "clicked")
    assert board.settle().runs.exclusions == {}
    board.exclude(table.run_ids[:3], "lassoed")
    board.restore(None)
    assert board.settle().runs.exclusions == {}
    assert [e.text.split()[0] for e in board.snapshot.log] == ["excluded", "taken"] * 2


def test_method_floor_and_target_are_asked_for(board, table):
    board.ask(method="log-huber", fixed={"E": 1.7}, target=1e21)
    s = board.settle()
    law = snb.fit_law(table, fixed={"E": 1.7}, flops="counted")
    assert s.analysis.law.params["E"] == 1.7
    assert s.analysis.answer.n_params == law.allocate(1e21).n_params
    assert s.analysis.optimum.objective_value <= s.analysis.law.objective_value


def test_a_data_cap_needs_a_law_and_says_so(board):
    board.ask(max_tokens=1e9)
    assert "Approach 3" in board.settle().analysis.problem
    board.ask(method="log-huber")
    s = board.settle()
    assert s.analysis.answer.unique_tokens == 1e9
    assert s.analysis.answer.epochs > 1


def test_every_listener_hears_the_same_and_none_after_it_left(board, settle, table):
    first, second = [], []
    leave = board.attach(first.append)
    board.attach(second.append)
    settle()
    board.exclude([table.run_ids[0]], "x")
    board.settle()
    settle()
    assert first[-1] is second[-1]
    leave()
    settle()
    n = len(first)
    board.restore(None)
    settle()
    assert len(first) == n < len(second)


def test_too_few_runs_give_a_sentence_and_no_answer(table):
    few = table.where(budget=1e17)
    found = analyse(few, Question(), quick=True)
    assert found.answer is None
    assert found.problem
    assert "isoflop" in found.figures


def test_a_sweep_trains_to_the_end_and_is_fitted(tiny_recipe, tmp_path, settle):
    plan = tiny_plan(tiny_recipe, (2e6, 4e6))
    board = board_of_recipe(tiny_recipe, plan=plan, store=tmp_path / "runs.db")
    steps = []

    class Follower:
        def begin(self, key):
            begun.append(key)

        def append(self, *piece):
            steps.append(piece)

    begun = []
    board.attach(lambda _: None, Follower())
    board.start()
    settle(lambda: board.snapshot.sweep is not None)
    assert board.snapshot.sweep.wait(60)
    settle(lambda: board.snapshot.status.state == "finished" and not board.snapshot.alive)
    settle(lambda: len(board.snapshot.runs) == len(plan.runs))
    assert sum(len(loss) for _, _, loss in steps) >= sum(r.n_steps for r in plan.runs)
    assert set(begun) == {run.run_id for run in plan.runs}
    assert any("finished: held-out loss" in e.text for e in board.snapshot.log)
    assert board.settle().analysis is not None
    assert board_of(board.snapshot.sweep) is board
    assert board_of_recipe(tiny_recipe, store=tmp_path / "runs.db") is board
    board.close()


def test_exclusions_come_back_with_the_store(tiny_recipe, tmp_path, settle):
    plan = tiny_plan(tiny_recipe, (2e6,))
    sweep = snb.Sweep(tiny_recipe, plan, store=tmp_path / "runs.db").start()
    assert sweep.wait(60)
    board = Board(sweep=sweep)
    run = plan.runs[0].run_id
    board.exclude([run], "diverged late")
    board.settle()
    sweep.store.flush()
    board.close()
    again = Board(sweep=snb.Sweep.open(tmp_path / "runs.db", tiny_recipe))
    assert again.settle().runs.exclusions == {run: "diverged late"}
    again.close()


def test_pause_holds_and_stop_ends(tiny_recipe, tmp_path, settle):
    plan = tiny_plan(tiny_recipe, (2e7, 4e7), max_epochs=100.0)
    board = board_of_recipe(tiny_recipe, plan=plan, store=tmp_path / "runs.db")
    board.start()
    settle(lambda: board.snapshot.status is not None and board.snapshot.status.tokens_seen)
    board.pause()
    settle(lambda: board.snapshot.status.state == "paused")
    board.pause()
    settle(lambda: board.snapshot.status.state == "running")
    board.stop()
    settle(lambda: board.snapshot.status.state not in ALIVE)
    assert board.snapshot.status.state == "cancelled"
    board.close()


def test_choices_are_planned_in_the_background_and_impossible_ones_explained(
    tiny_recipe, tmp_path, settle
):
    board = board_of_recipe(tiny_recipe, store=tmp_path / "runs.db")
    s = board.settle()
    assert len(s.choice.budgets) == 4
    board.choose(budgets=(1e3,))
    settle(lambda: bool(board.snapshot.plan_problem))
    assert "feasible" in board.snapshot.plan_problem
    board.choose(budgets=(4e6, 8e6), seeds=2)
    settle(lambda: not board.snapshot.planning and not board.snapshot.plan_problem)
    assert board.snapshot.plan.budgets == (4e6, 8e6)
    assert {run.seed for run in board.snapshot.plan.runs} == {0, 1}
    settle(lambda: board.snapshot.cost is not None, timeout=60)
    board.close()


def test_a_guess_puts_the_budgets_among_the_sizes(tiny_recipe):
    choice = guess(tiny_recipe)
    low, high = choice.budgets[0], choice.budgets[-1]
    compute = [
        20 * s.counts.total * s.flops_per_token
        for s in map(tiny_recipe.inspect_size, tiny_recipe.sizes)
    ]
    assert min(compute) <= low < high
    assert choice.budgets == tuple(sorted(choice.budgets))


@pytest.mark.parametrize(
    ("text", "budgets"),
    [
        ("1e12, 3e12, 1e13", (1e12, 3e12, 1e13)),
        ("1e12 3e12", (1e12, 3e12)),
        ("1e12 to 1e14 x 3", (1e12, 1e13, 1e14)),
        ("1e12–1e14×3", (1e12, 1e13, 1e14)),
    ],
)
def test_budgets_are_typed_as_people_write_them(text, budgets):
    assert parse(text) == pytest.approx(budgets)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("many", "Write FLOP, such as 1e12, 3e12, 1e13, or a range"),
        ("", "are no budgets"),
        ("1e12 to x 3", "are no budgets"),
        ("1e9 to 1e10 x 2.5", "are no budgets"),
        ("3e12, 1e12", r"Write 1e\+12, 3e\+12\.$"),
        ("1e12, 1e12", r"Write 1e\+12\.$"),
        ("-1", "has -1 in it, which is no positive number of FLOP"),
        ("0 to 1e9 x 3", "has 0 in it"),
        ("1e9 to 1e8 x 3", r"Write 1e\+08 to 1e\+09 x 3\.$"),
        ("1e8 to 1e8 x 3", r"Write 1e\+08 alone"),
        ("1e8 to 1e9 x 0", r"asks for 0 budgets.*Write 1e\+08 to 1e\+09 x 4\.$"),
        ("1e8 to 1e9 x 1", r"or 1e\+08 alone\.$"),
        ("1e8, 1e9, 3", r"For a range write 1e\+08 to 1e\+09 x 3\.$"),
    ],
)
def test_what_is_no_budget_is_answered_with_what_would_be(text, remedy):
    with pytest.raises(snb.PlanError, match=remedy) as caught:
        parse(text)
    # The panel has no arguments and no tuples.
    assert not re.search(r"compute_budgets|tuple|seeds=", str(caught.value))


class Conv(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = torch.nn.Sequential(torch.nn.Conv2d(1, channels, 3), torch.nn.ReLU(),
                                        torch.nn.Conv2d(channels, channels, 3))  # fmt: skip
        self.head = torch.nn.Linear(channels, 10)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("n", "sizes", "budgets"), [(20_000, None, 4), (20_000, [4, 8, 16, 32], 4), (2_000, None, 1)]
)
def test_a_guess_has_enough_sizes_at_every_budget_rather_than_many_budgets(n, sizes, budgets):
    data = torch.utils.data.TensorDataset(torch.zeros(n, 1, 8, 8), torch.zeros(n, dtype=int))
    recipe = snb.Recipe(Conv, size="channels", sizes=sizes, dataset=data, optimizer={"lr": 1e-3})
    choice = guess(recipe)
    assert len(choice.budgets) == budgets
    plan = make_plan(recipe, choice).plan
    for budget in choice.budgets:
        assert len({run.size for run in plan.runs if run.budget == budget}) >= 3


def test_another_schedule_makes_another_recipe(tiny_recipe):
    made = make_plan(tiny_recipe, PlanChoice(budgets=(8e6,), schedule="cosine"))
    assert made.recipe.schedule == "cosine"
    assert made.plan.recipe_id == made.recipe.recipe_id != tiny_recipe.recipe_id


def test_a_remedy_adds_the_missing_sizes_to_the_plan(tiny_recipe):
    plan = tiny_plan(tiny_recipe, (4e6, 6.4e7))
    largest = max(r.n_params for r in plan.runs if r.budget == 6.4e7)
    warning = FitWarning(
        code="minimum_not_bracketed",
        message="At C = 6.4e+07 FLOP the best size is the largest.",
        remedy=f"Add runs with N > {largest:.3g}; until then this budget is left out.",
        values={"budget": 6.4e7, "smallest": 61.0, "largest": float(largest)},
    )
    remedy = remedy_for(warning, plan)
    assert remedy.label == "+2 larger"
    wider = extended(plan, tiny_recipe, remedy)
    new = [r for r in wider.runs if r not in plan.runs]
    assert {r.budget for r in new} == {6.4e7}
    assert min(r.n_params for r in new) > largest
    assert np.all(np.diff([r.budget for r in wider.runs]) >= 0)


def test_a_warning_without_a_button_has_none(tiny_recipe):
    plan = tiny_plan(tiny_recipe, (4e6, 8e6))
    assert remedy_for(FitWarning(code="few_runs", message="", remedy=""), plan) is None
    assert remedy_for(FitWarning(code="few_runs", message="", remedy=""), None) is None


def test_a_remedy_is_trained_at_once(tiny_recipe, tmp_path, settle):
    plan = tiny_plan(tiny_recipe, (4e6,))
    sweep = snb.Sweep(tiny_recipe, plan, store=tmp_path / "runs.db", executor="inline").start()
    assert sweep.wait(60)
    board = Board(sweep=sweep)
    board.settle()
    warning = FitWarning(
        code="minimum_uncertain", message="", remedy="", values={"budget": 4e6, "share": 0.2}
    )
    board.heal(remedy_for(warning, plan))
    settle(lambda: len(board.snapshot.sweep.plan.runs) == 2 * len(plan.runs))
    assert board.snapshot.sweep.wait(60)
    settle(lambda: len(board.snapshot.runs) == 2 * len(plan.runs))
    assert board.snapshot.sweep is not sweep
    assert board.snapshot.sweep.executor.name == "inline"
    board.close()


def test_answers_follow_a_slider_that_does_not_stand_still(table, monkeypatch, settle):
    from scaling_nb.ui import fitting

    board = Board(runs=table)
    board.settle()
    asked, shown = [], []

    def moving(runs, question, *, quick, earlier=None):
        done = analyse(runs, question, quick=quick, earlier=earlier)
        if quick and len(asked) < 5:  # every answer finds another question
            asked.append(1e20 * (1 + len(asked)))
            board.ask(target=asked[-1])
            settle()
        return done

    monkeypatch.setattr(fitting, "analyse", moving)
    board.attach(lambda snapshot: shown.append(snapshot.analysis.question.target))
    board.ask(target=5e19)
    settle(lambda: len(asked) == 5 and shown[-1] == asked[-1])
    assert set(shown) >= {5e19, *asked}
    board.close()


def test_a_cost_that_was_timed_beside_training_does_not_count(
    tiny_recipe, tmp_path, monkeypatch, settle
):
    plan = tiny_plan(tiny_recipe, (4e6, 8e6, 1.6e7))
    begun, go_on = threading.Event(), threading.Event()
    real = type(plan).estimate

    def slow(self):
        cost = real(self)
        begun.set()
        assert go_on.wait(60)
        return cost

    monkeypatch.setattr(type(plan), "estimate", slow)
    board = Board(recipe=tiny_recipe, plan=plan, store=tmp_path / "runs.db")
    assert begun.wait(60)
    board.start()
    settle(lambda: board.snapshot.sweep is not None)
    board.snapshot.sweep.pause()
    settle(lambda: board.snapshot.alive)
    go_on.set()
    board._planning._prober.close()  # waits for it
    settle()
    assert board.snapshot.cost is None
    board.snapshot.sweep.resume()
    assert board.snapshot.sweep.wait(60)
    board.close()
