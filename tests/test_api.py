"""The whole flow in one call."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import TinyLM
from torch import nn
from torch.utils.data import TensorDataset

from scaling_nb import (
    FitError,
    PlanError,
    Recipe,
    RecipeError,
    RunTable,
    ScalingWarning,
    Sweep,
    SweepError,
    SweepPlan,
    TooFewRunsError,
    find_optimal,
    follow,
    result_of,
)
from scaling_nb.api import analyse, finished_result
from scaling_nb.events import Noted, RunFinished, RunStarted

pytestmark = pytest.mark.filterwarnings("ignore::scaling_nb.ScalingWarning")

OPTIONS = {"tokens_per_param": (0.0, 1e9), "max_epochs": 99.0, "min_steps": 10}


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture
def settings(tmp_path):
    x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0))
    return {
        "size": "width",
        "sizes": [2, 4, 8, 16],
        "dataset": TensorDataset(x, torch.sin(x.sum(1, keepdim=True))),
        "loss_fn": nn.MSELoss(),
        "optimizer": {"lr": 1e-2},
        "compute_budgets": [2e5, 4e5],
        "store": tmp_path / "runs.db",
        "progress": False,
        "plan_options": OPTIONS,
    }


def test_one_call_trains_and_fits(settings):
    result = find_optimal(Net, **settings)
    assert isinstance(result.runs, RunTable)
    assert len(result.runs) == len(result.plan.runs) == 8
    assert [m.budget for m in result.fit.minima] == [2e5, 4e5]
    assert set(result.curves) == set(result.runs.run_ids)
    assert len(result.plot().data) > 0
    assert "Approach 2" in str(result)
    assert "<table" in result._repr_html_()


def test_without_training_it_returns_the_plan(settings):
    plan = find_optimal(Net, **settings, train=False)
    assert isinstance(plan, SweepPlan)
    assert not settings["store"].exists()


def test_a_second_call_trains_nothing_anew(settings):
    first = find_optimal(Net, **settings)
    assert find_optimal(Net, **settings).runs.data_hash == first.runs.data_hash


def test_a_recipe_may_be_given_ready_made(settings, tokens):
    recipe = Recipe(TinyLM, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11},
                    dataset=tokens, tokens_per_sample=8, batch_size=4,
                    optimizer={"lr": 1e-2})  # fmt: skip
    keep = {k: settings[k] for k in ("store", "progress", "plan_options")}
    plan = find_optimal(recipe, compute_budgets=[1e6], train=False, **keep)
    assert plan.recipe_name == "TinyLM"
    with pytest.raises(TypeError, match="loss_fn belong to the Recipe"):
        find_optimal(recipe, compute_budgets=[1e6], loss_fn=nn.MSELoss(), **keep)


def test_what_is_wrong_is_said_before_anything_is_trained(settings):
    with pytest.raises(RecipeError, match="did you mean MSELoss"):
        find_optimal(Net, **{**settings, "loss_fn": nn.MSELoss})
    with pytest.raises(PlanError, match="not ascending"):
        find_optimal(Net, **{**settings, "compute_budgets": [4e5, 2e5]})
    assert not settings["store"].exists()


class Breaks(Net):
    broken = False

    def forward(self, x):
        if Breaks.broken and self.training and self.layers[0].out_features in self.bad:
            raise RuntimeError("my bug")
        return super().forward(x)


@pytest.mark.filterwarnings("default::scaling_nb.ScalingWarning")
def test_runs_that_fail_are_named_and_left_out(settings):
    Breaks.broken, Breaks.bad = False, {16}
    recipe = Recipe(
        Breaks, **{k: settings[k] for k in ("size", "sizes", "dataset", "loss_fn", "optimizer")}
    )
    Breaks.broken = True
    keep = {k: settings[k] for k in ("compute_budgets", "store", "progress", "plan_options")}
    with pytest.warns(ScalingWarning, match=r"2 of 8 runs did not finish .*my bug.* left out"):
        result = find_optimal(recipe, **keep)
    assert len(result.runs) == 6


def test_when_no_run_finishes_the_reason_is_the_error(settings):
    Breaks.broken, Breaks.bad = False, {2, 4, 8, 16}
    recipe = Recipe(
        Breaks, **{k: settings[k] for k in ("size", "sizes", "dataset", "loss_fn", "optimizer")}
    )
    Breaks.broken = True
    keep = {k: settings[k] for k in ("compute_budgets", "store", "progress", "plan_options")}
    with pytest.raises(SweepError, match=r"no run finished \(RuntimeError: my bug\)"):
        find_optimal(recipe, **keep)


@pytest.mark.filterwarnings("default::scaling_nb.ScalingWarning")
def test_runs_that_were_never_trained_are_counted(settings):
    keep = {k: settings[k] for k in ("size", "sizes", "dataset", "loss_fn", "optimizer")}
    recipe = Recipe(Net, **keep)
    plan = find_optimal(recipe, compute_budgets=[2e5, 4e5], train=False, plan_options=OPTIONS)
    sweep = Sweep(recipe, plan, store=settings["store"], executor="inline")
    sweep.events.connect(lambda e: sweep.cancel() if isinstance(e, RunFinished) else None)
    sweep.start()
    assert sweep.wait(60)
    assert len(sweep.runs) == 1
    with (
        pytest.warns(ScalingWarning, match=r"7 of 8 runs did not finish \(6|7 were not trained"),
        contextlib.suppress(FitError),
    ):
        finished_result(sweep)


def test_following_needs_a_sweep_that_was_started(settings):
    keep = {k: settings[k] for k in ("size", "sizes", "dataset", "loss_fn", "optimizer")}
    recipe = Recipe(Net, **keep)
    plan = find_optimal(recipe, compute_budgets=[2e5], train=False, plan_options=OPTIONS)
    sweep = Sweep(recipe, plan, store=settings["store"])
    with pytest.raises(SweepError, match=r"Call sweep.start\(\) first"):
        follow(sweep)
    sweep.start()
    follow(sweep, background=True, progress=False)
    assert sweep.wait(60)
    assert len(result_of(sweep).runs) == 4


def test_what_an_executor_notes_is_printed(settings, capsys):
    keep = {k: settings[k] for k in ("size", "sizes", "dataset", "loss_fn", "optimizer")}
    recipe = Recipe(Net, **keep)
    plan = find_optimal(recipe, compute_budgets=[2e5], train=False, plan_options=OPTIONS)
    sweep = Sweep(recipe, plan, store=settings["store"], executor="inline")
    following = threading.Event()

    def note(event):
        if isinstance(event, RunStarted) and event.spec.run_id == plan.runs[0].run_id:
            assert following.wait(30)
            sweep.events.send(Noted(message="10.0.0.2 was lost"))

    sweep.events.connect(note)
    alone = len(sweep.events._observers)
    thread = threading.Thread(target=follow, args=(sweep.start(),), kwargs={"progress": False})
    thread.start()
    while len(sweep.events._observers) == alone:
        time.sleep(0.01)  # what pytest's time limit ends
    following.set()
    thread.join()
    assert "note: 10.0.0.2 was lost" in capsys.readouterr().err


@pytest.fixture
def lawful(settings):
    """A plan whose runs obey a known law, noise-free."""
    from scaling_nb import ChinchillaLaw

    law = ChinchillaLaw()
    params = {"E": 1.7, "A": 400.0, "B": 400.0, "alpha": 0.34, "beta": 0.34}
    rows = []
    for budget in (1e18, 1e19, 1e20):
        for n in np.geomspace(0.2, 5, 7) * (budget / 6) ** 0.5:
            d = budget / 6 / n
            rows.append({"N": n, "D": d, "C": budget, "budget": budget,
                         "loss": float(law.predict(params, n, d))})  # fmt: skip
    plan = find_optimal(Net, **settings, train=False)
    import dataclasses

    plan = dataclasses.replace(plan, budgets=(1e18, 1e19, 1e20))
    return plan, RunTable.from_frame(pd.DataFrame(rows))


def test_the_table_has_the_planned_budgets_and_two_beyond(lawful):
    result = analyse(*lawful)
    assert result.answers
    table = result.chinchilla_table()
    assert list(table["C"]) == [1e18, 1e19, 1e20, 1e21, 1e22]
    assert list(result.chinchilla_table([1e19])["C"]) == [1e19]
    # alpha = beta, A = B: N* = D* = sqrt(C / 6).
    assert np.allclose(table["n_params"], np.sqrt(table["C"] / 6), rtol=0.02)


def test_a_prediction_has_n_d_loss_and_intervals(lawful):
    answer = analyse(*lawful).predict(1e21)
    assert answer.n_params == pytest.approx(np.sqrt(1e21 / 6), rel=0.02)
    assert answer.tokens_per_param == pytest.approx(answer.n_tokens / answer.n_params)
    assert answer.extrapolation == pytest.approx(10)
    assert {"n_params", "n_tokens", "loss"} <= set(answer.intervals)


def test_without_two_optima_there_is_no_answer_but_a_reason(lawful):
    plan, runs = lawful
    result = analyse(plan, runs.where(runs.column("budget") < 5e18))
    assert not result.answers
    with pytest.raises(FitError, match="power law needs two"):
        result.predict(1e21)
    assert "power law needs two" in " ".join(result.warnings)
    assert "power law needs two" in str(result)


def test_a_prediction_carries_the_doubts_of_its_fit(lawful):
    plan, runs = lawful
    two = analyse(plan, runs.where(runs.column("budget") < 5e19))
    assert {"two_optima"} <= {note.code for note in two.fit.warnings}
    answer = two.predict(1e19)
    assert "Two optima fix the power law exactly" in str(answer)
    assert "Two optima fix the power law exactly" in answer._repr_html_()


def test_losses_that_are_not_positive_are_named(lawful):
    plan, runs = lawful
    frame = runs.to_frame()
    frame["loss"] -= 100.0
    negative = RunTable(columns={name: frame[name].to_numpy() for name in frame})
    with pytest.raises(TooFewRunsError, match=r"21 runs have losses from -97.9 to -97.2, which "
                       "are not positive"):  # fmt: skip
        analyse(plan, negative)


class Explodes(Net):
    def forward(self, x):
        return super().forward(x) * (float("inf") if self.training and Explodes.on else 1.0)


def test_when_all_runs_diverge_it_is_said(settings):
    Explodes.on = False
    recipe = Recipe(
        Explodes, **{k: settings[k] for k in ("size", "sizes", "dataset", "loss_fn", "optimizer")}
    )
    plan = find_optimal(recipe, compute_budgets=[2e5], train=False, plan_options=OPTIONS)
    sweep = Sweep(recipe, plan, store=settings["store"], executor="inline")
    with pytest.raises(SweepError, match="no run finished yet, of 4 that are planned"):
        result_of(sweep)
    Explodes.on = True
    sweep.start().wait(60)
    with pytest.raises(SweepError, match=r"all 4 runs diverged \(.*lower the learning rate"):
        result_of(sweep)


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ({"lr": 1e-3}, r"lr is a setting of the optimizer. Give optimizer={'lr': 0.001}"),
        ({"betas": (0.9, 0.99), "weight_decay": 0.0}, r"Give optimizer={'betas': \(0.9, 0.99\), "),
        ({"batchsize": 8}, "no argument 'batchsize'; did you mean 'batch_size'"),
    ],
)
def test_an_unknown_argument_is_told_where_it_belongs(settings, option, hint):
    with pytest.raises(TypeError, match=hint):
        find_optimal(Net, **settings, **option)
