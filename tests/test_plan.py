from __future__ import annotations

import math
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import Regressor, TinyLM, tiny_plan
from hypothesis import given, strategies as st

from scaling_nb import PlanError, Recipe, ScalingWarning, SweepPlan, plan_sweep
from scaling_nb.cost import StepCost, estimate_cost
from scaling_nb.flops import ParamCounts
from scaling_nb.grid import parse_budgets


def fake_recipe(sizes=(1, 2, 4, 8, 16, 32, 64), unique=10**12, step=100, **options):
    """A recipe whose model of size k has k·1000 parameters: planning needs no torch."""

    def inspect_size(value):
        if value % 1:
            raise PlanError("sizes must be whole")
        n = int(value * 1000)
        counts = ParamCounts(total=n, non_embedding=n // 2, matmul=n // 2)
        return SimpleNamespace(value=value, counts=counts, flops_per_token=6.0 * n, uncounted=0)

    return SimpleNamespace(
        name="fake", size="k", sizes=sizes, smallest=1, schedule="wsd", recipe_id="r",
        unit="tokens", tokens_per_step=step, unique_tokens=unique, inspect_size=inspect_size,
        learning_rates=lambda values: dict.fromkeys(values, 0.01),
        can_branch=lambda n: n > 50, default_workers=2, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ([], "compute_budgets is empty"),
        ("1e12", "is '1e12'. Give FLOP as a list"),
        (1e12, "Give FLOP as a list"),
        (["1e12"], "budget '1e12' is not a number"),
        ([None], "budget None is not a number"),
        ([True], "budget True is not a number"),
        ([0.0], "budget 0.0 is not a positive"),
        ([-1e12], "is not a positive"),
        ([math.nan], "budget nan is not a positive"),
        ([math.inf], "budget inf is not a positive"),
        ([1e12, 1e11], r"not ascending. Give \[1e\+11, 1e\+12\]"),
        ([1e12, 1e12], "given twice. Give each once"),
        ((1e12, 1e11, 4), r"give the tuple \(low, high, count\)"),
        ((1e12, 1e12, 4), r"give the tuple \(low, high, count\)"),
        ([1e11, 1e12, 4], r"give the tuple \(low, high, count\)"),
        ([10**400], "is not a number"),
        (np.array(1e12), "is one number. Give a list"),
    ],
)
def test_bad_budgets_say_what_would_be_right(budgets, message):
    with pytest.raises(PlanError, match=message):
        plan_sweep(fake_recipe(), budgets)


@pytest.mark.parametrize("budgets", [[0.0], [-1e12], [math.nan], "1e12", ["1e12"], []])
def test_bad_budgets_come_with_feasible_ones(budgets):
    with pytest.raises(PlanError, match=r"Budgets from (\S+) to (\S+) FLOP are feasible") as caught:
        plan_sweep(fake_recipe(), budgets)
    low, high = map(float, re.findall(r"Budgets from (\S+) to (\S+) FLOP", str(caught.value))[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScalingWarning)
        assert plan_sweep(fake_recipe(), [1.01 * low, 0.99 * high]).budgets[0] == 1.01 * low


def test_a_dense_grid_is_thinned_before_sizes_are_chosen():
    dense = fake_recipe(sizes=list(range(8, 129)))
    plan = plan_sweep(dense, [1e12, 2e12], n_sizes=6)
    for budget in plan.budgets:
        sizes = [run.size for run in plan.runs if run.budget == budget]
        assert len(sizes) == 6
        assert sizes[-1] / sizes[0] > 3
    # Where six are all there are, they are taken as they are.
    few = plan_sweep(fake_recipe(sizes=[20, 22, 24, 26, 28, 30]), [1e12], n_sizes=6)
    assert [run.size for run in few.runs] == [20, 22, 24, 26, 28, 30]


def test_matrices_that_matmul_cannot_judge_are_warned_of(tokens):
    class Raw(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.table = torch.nn.Parameter(torch.randn(11, width))
            self.head = torch.nn.Linear(width, 11)

        def forward(self, x):
            return self.head(self.table[x])

    recipe = Recipe(Raw, size="width", sizes=[4, 8, 16], dataset=tokens, batch_size=4,
                    tokens_per_sample=8, optimizer={"lr": 1e-2}, eval_tokens=64)  # fmt: skip
    settings = {"min_steps": 10, "tokens_per_param": (0.1, 1e6), "max_epochs": 10.0}
    with pytest.warns(ScalingWarning, match="has 176 parameters in matrices of its own"):
        plan_sweep(recipe, [2e6], convention="matmul", **settings)
    plan_sweep(recipe, [2e6], **settings)


def test_a_range_of_budgets_is_log_spaced():
    assert parse_budgets((1e9, 1e12, 4)) == pytest.approx((1e9, 1e10, 1e11, 1e12))
    assert parse_budgets(np.array([1e9, 1e10])) == (1e9, 1e10)
    assert parse_budgets((1e9, 2e9, 3e9)) == (1e9, 2e9, 3e9)


@pytest.mark.parametrize(
    ("budgets", "options"),
    [
        ([1e3], {}),
        ([1e30], {}),
        ([1e10], {"tokens_per_param": (1e8, 2e9)}),
    ],
)
@pytest.mark.filterwarnings("ignore::scaling_nb.ScalingWarning")
def test_infeasible_budgets_name_those_that_are_feasible(budgets, options):
    with pytest.raises(PlanError, match=r"no run is feasible \(k=1 .* are feasible") as caught:
        plan_sweep(fake_recipe(), budgets, **options)
    words = str(caught.value).split("Budgets from ")[1].split()
    low, high = float(words[0]), float(words[2])
    assert plan_sweep(fake_recipe(), [low * 1.05], **options).runs
    assert plan_sweep(fake_recipe(), [high * 0.95], **options).runs


def test_fewer_than_three_sizes_at_a_budget_are_warned_of():
    with pytest.warns(ScalingWarning, match="only 2 sizes are feasible at 1e\\+10 FLOP"):
        plan_sweep(fake_recipe(sizes=[4, 8]), [1e10])


def test_too_little_data_for_any_run_says_so():
    with pytest.raises(PlanError, match="feasible at any budget .* give more data"):
        plan_sweep(fake_recipe(unique=100), [1e9])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_sizes": 0}, "n_sizes is 0"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": [0, -1]}, r"seeds is \[0, -1\]"),
        ({"min_steps": 1.5}, "min_steps is 1.5"),
        ({"tokens_per_param": (5, 1)}, "tokens_per_param is"),
        ({"convention": "heads"}, "convention 'heads' is unknown"),
        ({"reuse": "trunk"}, "reuse is 'trunk'"),
        ({"size_multiple": -4}, "size_multiple is -4"),
        ({"max_epochs": None}, "max_epochs is None"),
        ({"max_epochs": float("nan")}, "max_epochs is nan"),
        ({"tokens_per_param": 5}, "tokens_per_param is 5"),
    ],
)
def test_bad_options_say_what_would_be_right(options, message):
    with pytest.raises(PlanError, match=message):
        plan_sweep(fake_recipe(), [1e10], **options)


def test_trunks_need_a_schedule_that_has_one():
    recipe = fake_recipe()
    recipe.schedule = "cosine"
    with pytest.raises(PlanError, match='needs schedule="wsd"'):
        plan_sweep(recipe, [1e10], reuse="cooldown")


@given(
    budgets=st.lists(st.floats(8, 14), min_size=1, max_size=5, unique=True),
    n_sizes=st.one_of(st.none(), st.integers(3, 7)),
    seeds=st.integers(1, 3),
    step=st.sampled_from([1, 64, 512]),
)
@pytest.mark.filterwarnings("ignore::scaling_nb.ScalingWarning")
def test_whatever_is_planned_is_isoflop(budgets, n_sizes, seeds, step):
    budgets = sorted(10.0**b for b in budgets)
    try:
        plan = plan_sweep(fake_recipe(step=step), budgets, n_sizes, seeds)
    except PlanError:
        return
    for run in plan.runs:
        assert run.n_tokens % step == 0
        assert run.n_steps >= 60
        batch = step * run.flops_per_token
        assert run.budget - 1.000001 * batch < run.compute <= run.budget * 1.000001
        assert 0.1 <= run.tokens_per_param <= 1000
    assert len({run.run_id for run in plan.runs}) == len(plan.runs)
    for budget in plan.budgets:
        sizes = {run.size for run in plan.runs if run.budget == budget}
        assert n_sizes is None or len(sizes) <= n_sizes
    assert plan.total_flops == pytest.approx(sum(run.compute for run in plan.runs))


def test_the_grid_is_shared_and_what_is_left_out_is_named():
    plan = plan_sweep(fake_recipe(sizes=[1, 2.5, 4, 8, 16, 32]), [1e10, 1e11])
    assert {run.size for run in plan.runs} <= {1, 4, 8, 16, 32}
    reasons = {(s.size, s.budget): s.reason for s in plan.skipped}
    assert reasons[(2.5, None)] == "sizes must be whole"
    assert "more than 1000" in reasons[(1, 1e11)]
    assert "left out: k=2.5: sizes must be whole" in repr(plan)


def test_sizes_are_chosen_log_spaced_where_none_are_named():
    plan = plan_sweep(fake_recipe(sizes=None), [1e12, 1e13])
    for budget in plan.budgets:
        n = np.array(sorted({run.n_params for run in plan.runs if run.budget == budget}))
        assert len(n) == 6
        assert (n[1:] / n[:-1] >= 1.7).all()
        assert (n[1:] / n[:-1] <= 3).all()
        ratios = [run.tokens_per_param for run in plan.runs if run.budget == budget]
        assert min(ratios) < 20 < max(ratios)


def test_sizes_can_be_rounded_to_a_multiple():
    plan = plan_sweep(fake_recipe(sizes=None), [1e14], size_multiple=64)
    assert all(run.size % 64 == 0 for run in plan.runs)


def test_repeated_data_is_shown_and_warned_of():
    with pytest.warns(ScalingWarning, match=r"runs repeat the data \(up to 2.1 epochs\)"):
        plan = plan_sweep(fake_recipe(unique=40_000), [1e9])
    assert plan.to_frame()["epochs"].max() == pytest.approx(2.08, abs=0.01)
    assert any("epochs over the data, more than 4" in s.reason for s in plan.skipped)


def test_conventions_are_a_named_choice_and_all_are_recorded():
    total = plan_sweep(fake_recipe(), [1e10])
    other = plan_sweep(fake_recipe(), [1e10], convention="non_embedding")
    assert other.runs[0].n_params == total.runs[0].n_params / 2
    assert other.runs[0].counts == total.runs[0].counts


def test_the_plan_shows_both_counts_of_compute(tiny_recipe):
    frame = tiny_plan(tiny_recipe).to_frame()
    assert {"width", "N", "D", "tokens_per_param", "epochs", "steps", "C", "C_6ND"} <= set(frame)
    assert (frame["C_6ND"] == 6 * frame["N"] * frame["D"]).all()


def test_a_plan_is_known_by_its_content(tiny_recipe):
    plan = tiny_plan(tiny_recipe)
    again = SweepPlan.from_dict(plan.to_dict())
    assert again == plan
    assert hash(again) == hash(plan)
    assert again.plan_id == plan.plan_id == tiny_plan(tiny_recipe).plan_id
    assert tiny_plan(tiny_recipe, seeds=2).plan_id != plan.plan_id
    with pytest.raises(AttributeError):
        plan.runs = ()


def test_branches_share_a_trunk_and_independent_runs_do_not():
    shared = plan_sweep(fake_recipe(), [1e10, 2e10], reuse="cooldown", seeds=2)
    alone = plan_sweep(fake_recipe(), [1e10, 2e10], seeds=2)
    assert len(shared.jobs()) < len(alone.jobs()) == len(alone.runs)
    assert len({run.trunk_id for run in alone.runs}) == len(alone.runs)
    for job in shared.jobs():
        assert len({(run.size, run.seed) for run in job}) == 1
        assert [run.n_tokens for run in job] == sorted(run.n_tokens for run in job)
    assert shared.trained_flops < alone.trained_flops == pytest.approx(alone.total_flops)


def test_the_longest_job_starts_first():
    small = plan_sweep(fake_recipe(), [1e10, 2e10]).jobs()
    steps = [sum(run.n_steps for run in job) for job in small]
    assert steps == sorted(steps, reverse=True)
    large = plan_sweep(fake_recipe(step=10**5), [1e14, 2e14], tokens_per_param=(0, 1e9)).jobs()
    costs = [round(sum(run.compute for run in job), -13) for job in large]
    assert costs == sorted(costs, reverse=True)


def test_an_estimate_has_time_memory_and_energy_with_a_range(tiny_recipe):
    estimate = tiny_plan(tiny_recipe).estimate(workers=2, watts=10, price_per_kwh=0.5)
    low, high = estimate.seconds_range
    assert 0 < low < estimate.seconds < high
    assert estimate.peak_bytes > 0
    assert estimate.kwh == pytest.approx(2 * 10 * estimate.seconds / 3.6e6)
    assert estimate.price == pytest.approx(estimate.kwh * 0.5)
    assert "kWh" in str(estimate)


def test_a_plan_without_its_recipe_cannot_be_measured(tiny_recipe):
    plan = SweepPlan.from_dict(tiny_plan(tiny_recipe).to_dict())
    with pytest.raises(PlanError, match="no recipe to measure"):
        plan.estimate()


def test_learning_rates_are_shown_in_the_plan(tokens):
    recipe = Recipe(TinyLM, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11},
                    dataset=tokens, batch_size=4, tokens_per_sample=8)  # fmt: skip
    frame = tiny_plan(recipe).to_frame()
    assert (frame["lr"] > 0).all()
    assert frame.groupby("width")["lr"].nunique().max() == 1


def test_numpy_counts_are_counts():
    plan = plan_sweep(fake_recipe(), [1e10], np.int64(4), seeds=np.array([0, 3]))
    assert {run.seed for run in plan.runs} == {0, 3}
    assert len({run.size for run in plan.runs}) == 4


def test_sizes_outside_the_window_are_listed():
    plan = plan_sweep(fake_recipe(), [1e10], 3)
    left_out = [s for s in plan.skipped if "outside the 3 sizes asked for" in s.reason]
    assert len(left_out) + len(plan.runs) == len(plan_sweep(fake_recipe(), [1e10]).runs)


def test_the_plan_shows_itself_safely():
    recipe = fake_recipe()
    recipe.name = "<lambda>"
    assert "&lt;lambda&gt;" in plan_sweep(recipe, [1e10])._repr_html_()


def test_sizes_that_do_not_change_n_are_refused():
    def same(value):
        counts = ParamCounts(total=650, non_embedding=650, matmul=600)
        return SimpleNamespace(value=value, counts=counts, flops_per_token=3900.0, uncounted=0)

    for sizes in ([8, 16, 32], None):
        recipe = fake_recipe(sizes=sizes)
        recipe.inspect_size = same
        with pytest.raises(PlanError, match=r"k=\d+ to \d+ all give N = 650 .* does not use k"):
            plan_sweep(recipe, [1e9])


def test_two_sizes_of_one_n_are_warned_of():
    recipe = fake_recipe(sizes=[4, 8, 16, 17, 32])
    inspect = recipe.inspect_size
    recipe.inspect_size = lambda v: SimpleNamespace(**{**vars(inspect(16 if v == 17 else v)),
                                                       "value": v})  # fmt: skip
    with pytest.warns(ScalingWarning, match="k=16, 17 give N = 16,000 parameters.*repeats"):
        plan_sweep(recipe, [1e11])


@pytest.mark.parametrize("sizes", [None, [2, 4, 8]])
def test_the_feasible_range_is_one_whatever_was_asked(sizes):
    told = set()
    for budgets in ([1e3], [1e20], [-1.0], []):
        with pytest.raises(PlanError) as caught:
            plan_sweep(fake_recipe(sizes=sizes, unique=10**6), budgets)
        told.add(re.findall(r"Budgets from .* are feasible.*?\.(?= |$)", str(caught.value))[0])
    assert len(told) == 1


def test_a_ladder_of_sizes_that_goes_on_says_so():
    with pytest.raises(PlanError, match="for k=1 to 256, larger ones for larger sizes"):
        plan_sweep(fake_recipe(sizes=None, unique=None), [1e3])


def test_a_plan_of_one_run_counts_in_words():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        plan = plan_sweep(fake_recipe(sizes=[8]), [1e10, 1e14])
    said = " ".join(str(warning.message) for warning in told)
    assert "only 1 size is feasible at 1e+10 FLOP" in said
    assert "no size is feasible at 1e+14 FLOP" in said
    assert plan.summary().startswith("1 run of fake: k 8 at 1e+10 FLOP")


def test_a_recipe_of_samples_is_not_told_of_tokens(tiny_recipe):
    data = torch.utils.data.TensorDataset(torch.zeros(400, 4), torch.ones(400, 1))
    recipe = Recipe(Regressor, size="width", sizes=[2, 3, 4, 8], dataset=data, batch_size=4,
                    loss_fn=torch.nn.MSELoss(), optimizer={"lr": 1e-2})  # fmt: skip
    with pytest.warns(ScalingWarning, match="Repeated samples are worth less"):
        plan = plan_sweep(recipe, [2e5], tokens_per_param=(25.0, 1e6), max_epochs=20.0)
    assert "samples_per_param" in repr(plan)
    assert "samples_per_param" in plan._repr_html_()
    assert "samples per parameter, fewer than 25" in repr(plan)
    assert "token" not in repr(plan)
    assert "tokens_per_param" in plan.to_frame()
    assert tiny_recipe.unit == "tokens"


def test_an_estimate_has_room_for_what_a_trunk_comes_back_to(tiny_recipe):
    class Measured:
        default_workers = 1

        def measure_step(self, value, *, lr=None, workers=1, beside=0):
            return StepCost(step_seconds=1e-3, step_spread=(1e-3, 1e-3), eval_seconds=0.0,
                            peak_bytes=1000, snapshot_bytes=300, watts=200.0)  # fmt: skip

    shared, alone = (
        estimate_cost(Measured(), tiny_plan(tiny_recipe, reuse=reuse).jobs())
        for reuse in ("cooldown", None)
    )
    assert (alone.peak_bytes, shared.peak_bytes) == (1000, 1300)
    assert alone.watts == 200


def test_processes_that_share_a_gpu_are_slower_than_one_alone_and_draw_its_power_once(tiny_recipe):
    class Measured:
        default_workers = 1

        def measure_step(self, value, *, lr=None, workers=1, beside=0):
            return StepCost(step_seconds=1e-3, step_spread=(1e-3, 1e-3), eval_seconds=0.0,
                            peak_bytes=1000, watts=700.0)  # fmt: skip

    jobs = tiny_plan(tiny_recipe, reuse=None).jobs()
    free, shared, threads = (
        estimate_cost(Measured(), jobs, workers=3, side_by_side=at_once, gpus=gpus)
        for at_once, gpus in ((1, 3), (1, 1), (3, 1))
    )
    assert shared.seconds == pytest.approx(1.2 * free.seconds)
    assert threads.seconds == pytest.approx(free.seconds)  # measured together, so already in it
    assert shared.kwh == pytest.approx(700 * shared.seconds / 3.6e6)
    assert free.kwh == pytest.approx(3 * 700 * free.seconds / 3.6e6)
