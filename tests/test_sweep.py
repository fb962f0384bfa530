from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from helpers import TinyLM, tiny_plan

from scaling_nb import Recipe, Sweep, SweepError
from scaling_nb.events import RunFinished, RunStarted, StepLogged
from scaling_nb.executors import InlineExecutor, ThreadExecutor


def losses(sweep: Sweep) -> dict[str, float]:
    return {run.run_id: run.loss for run in sweep.runs}


def finished(recipe, path, **options) -> Sweep:
    plan = options.pop("plan", None) or tiny_plan(recipe, reuse="cooldown")
    sweep = Sweep(recipe, plan, store=path, **options).start()
    assert sweep.wait(60)
    return sweep


class Gate:
    """Holds training at a chosen step until a test lets it go on: events, not clocks."""

    def __init__(self, at: int) -> None:
        self.at, self.steps = at, 0
        self.reached, self.open = threading.Event(), threading.Event()
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        return "Gate()"

    def step(self, model, batch):
        if model.training and batch[0].device.type != "meta":  # counting is on "meta"
            with self.lock:
                self.steps += 1
                held = self.steps == self.at
            if held:
                self.reached.set()
                assert self.open.wait(30)
        return torch.nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def gated(tokens, gate: Gate) -> Recipe:
    recipe = Recipe(TinyLM, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11},
                    dataset=tokens, batch_size=4, tokens_per_sample=8, step_fn=gate.step,
                    flops="6ND", optimizer={"lr": 1e-2}, warmup_steps=5,
                    eval_tokens=512)  # fmt: skip
    recipe.learning_rates([2, 4, 8])
    gate.steps = 0  # planning has probed, what counts now are steps of the sweep
    return recipe


def test_a_sweep_trains_its_plan(tiny_recipe, tmp_path):
    sweep = finished(tiny_recipe, tmp_path / "runs.db")
    table = sweep.runs
    assert len(table) == len(sweep.plan.runs)
    assert np.array_equal(table.N, [spec.n_params for spec in sweep.plan.runs])
    assert np.array_equal(table.D, [spec.n_tokens for spec in sweep.plan.runs])
    assert np.allclose(table.C, [spec.compute for spec in sweep.plan.runs])
    assert (np.log(11) > table.L).all()
    status = sweep.status()
    assert (status.state, status.n_done, status.eta) == ("finished", len(table), 0.0)
    assert str(status) == f"finished: {len(table)}/{len(table)} runs"


def test_curves_are_in_the_store(tiny_recipe, tmp_path):
    sweep = finished(tiny_recipe, tmp_path / "runs.db")
    for spec in sweep.plan.runs:
        tokens, loss = sweep.curve(spec.run_id)
        assert np.array_equal(tokens, np.arange(1, spec.n_steps + 1) * spec.tokens_per_step)
        assert np.isfinite(loss).all()
    with pytest.raises(SweepError, match="no run of this sweep is called 'x'"):
        sweep.curve("x")


@pytest.mark.parametrize("reuse", [None, "cooldown"])
def test_the_same_seed_gives_the_same_losses_with_one_and_two_workers(tiny_recipe, tmp_path, reuse):
    plan = tiny_plan(tiny_recipe, reuse=reuse)
    results = [
        losses(finished(tiny_recipe, tmp_path / f"{i}.db", plan=plan, executor=executor))
        for i, executor in enumerate([ThreadExecutor(1), ThreadExecutor(2), InlineExecutor()])
    ]
    assert results[0] == results[1] == results[2]
    assert len(set(results[0].values())) == len(plan.runs)


def test_wide_models_built_at_once_start_alike(tokens, tmp_path):
    """Without a lock around the global generator, concurrent builds at width 160 went wrong."""
    recipe = Recipe(TinyLM, size="width", sizes=[160, 161, 162, 163],
                    model_kwargs={"vocab_size": 11}, dataset=tokens, batch_size=4,
                    tokens_per_sample=8, optimizer={"lr": 1e-3}, eval_tokens=64)  # fmt: skip
    plan = tiny_plan(recipe, [1e8], tokens_per_param=(0, 10))
    one = losses(finished(recipe, tmp_path / "1.db", plan=plan, executor=ThreadExecutor(1)))
    four = losses(finished(recipe, tmp_path / "4.db", plan=plan, executor=ThreadExecutor(4)))
    assert one == four


def test_runs_with_dropout_take_turns_and_repeat(tokens, tmp_path):
    recipe = Recipe(TinyLM, size="width", sizes=[2, 4, 8],
                    model_kwargs={"vocab_size": 11, "dropout": 0.2}, dataset=tokens, batch_size=4,
                    tokens_per_sample=8, optimizer={"lr": 1e-2}, warmup_steps=5,
                    eval_tokens=512, device="cpu")  # fmt: skip
    assert ThreadExecutor(4).workers(recipe) == 1
    first = losses(finished(recipe, tmp_path / "1.db", executor=ThreadExecutor(4)))
    torch.rand(7)
    assert losses(finished(recipe, tmp_path / "2.db", executor=InlineExecutor())) == first


def test_start_returns_at_once_and_cancel_stops(tokens, tmp_path):
    gate = Gate(at=30)
    recipe = gated(tokens, gate)
    sweep = Sweep(recipe, tiny_plan(recipe), store=tmp_path / "runs.db").start()
    assert gate.reached.wait(30)
    assert sweep.state == "running"
    assert not sweep.wait(0)
    sweep.cancel()
    gate.open.set()
    assert sweep.wait(30)
    assert sweep.state == "cancelled"
    assert {run.status for run in sweep.failures} == {"cancelled"}


def test_a_cancelled_sweep_goes_on_and_ends_like_an_undisturbed_one(tokens, tmp_path):
    undisturbed = Gate(at=-1)
    recipe = gated(tokens, undisturbed)
    expected = losses(finished(recipe, tmp_path / "a.db"))
    gate = Gate(at=len(expected) * 15)
    recipe = gated(tokens, gate)
    plan = tiny_plan(recipe, reuse="cooldown")
    sweep = Sweep(recipe, plan, store=tmp_path / "b.db", executor="inline").start()
    assert gate.reached.wait(30)
    sweep.cancel()
    gate.open.set()
    assert sweep.wait(30)
    kept = losses(sweep)
    assert len(kept) < len(plan.runs)
    again = Sweep.open(tmp_path / "b.db", recipe).start()
    assert again.wait(60)
    assert sorted(losses(again).values()) == sorted(expected.values())
    assert kept.items() <= losses(again).items()
    for spec in plan.runs:
        assert len(again.curve(spec.run_id)[0]) == spec.n_steps


def test_pausing_holds_every_run_between_two_steps(tokens, tmp_path):
    gate = Gate(at=20)
    recipe = gated(tokens, gate)
    sweep = Sweep(recipe, tiny_plan(recipe), store=tmp_path / "runs.db", executor="inline").start()
    assert gate.reached.wait(30)
    sweep.pause()
    gate.open.set()
    assert not sweep.wait(0.3)
    assert sweep.state == sweep.status().state == "paused"
    assert gate.steps == 20
    sweep.resume()
    assert sweep.wait(30)
    assert sweep.state == "finished"


def test_finished_runs_are_not_trained_again(tiny_recipe, tmp_path):
    first = finished(tiny_recipe, tmp_path / "runs.db")
    events = []
    again = Sweep(tiny_recipe, first.plan, store=tmp_path / "runs.db")
    assert again.state == "finished"
    again.events.connect(events.append)
    assert again.start().wait(10)
    assert events == []
    assert losses(again) == losses(first)


def test_a_larger_plan_reuses_what_is_there(tiny_recipe, tmp_path):
    first = finished(tiny_recipe, tmp_path / "runs.db")
    events = []
    more = Sweep(
        tiny_recipe,
        tiny_plan(tiny_recipe, reuse="cooldown", seeds=2),
        store=tmp_path / "runs.db",
    )
    more.events.connect(events.append)
    assert more.start().wait(60)
    started = {e.spec.seed for e in events if isinstance(e, RunStarted)}
    assert started == {1}
    assert losses(first).items() <= losses(more).items()


def test_events_tell_what_happens(tiny_recipe, tmp_path):
    events = []
    sweep = Sweep(tiny_recipe, tiny_plan(tiny_recipe), store=tmp_path / "runs.db")
    sweep.events.connect(events.append)
    sweep.events.connect(lambda event: 1 / 0)
    assert sweep.start().wait(60)
    assert sum(isinstance(e, RunStarted) for e in events) == len(sweep.plan.runs)
    assert sum(isinstance(e, RunFinished) for e in events) == len(sweep.plan.runs)
    logged = sum(len(e.tokens) for e in events if isinstance(e, StepLogged))
    assert logged == sum(spec.n_steps for spec in sweep.plan.runs)


def test_a_failing_run_keeps_its_traceback_and_the_sweep_goes_on(tokens, tmp_path):
    def step(model, batch):
        if model.hidden.out_features == 4 and model.training:
            step.seen += 1
            if step.seen == 20:
                raise RuntimeError("my bug")
        return torch.nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    step.seen = 0
    recipe = Recipe(TinyLM, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11},
                    dataset=tokens, batch_size=4, tokens_per_sample=8, step_fn=step, flops="6ND",
                    optimizer={"lr": 1e-2}, eval_tokens=64)  # fmt: skip
    step.seen = 0
    sweep = finished(recipe, tmp_path / "runs.db", plan=tiny_plan(recipe))
    (failed,) = sweep.failures
    assert (failed.status, failed.message) == ("failed", "RuntimeError: my bug")
    assert 'raise RuntimeError("my bug")' in sweep.traceback(failed.run_id)
    assert len(sweep.runs) == len(sweep.plan.runs) - 1


def test_a_diverging_run_is_reported_and_left_out(tokens, tmp_path):
    class Explodes(TinyLM):
        steps = 0

        def forward(self, x):
            out = super().forward(x)
            if self.training and self.hidden.out_features == 8:
                self.steps += 1
                if self.steps > 20:
                    return out * float("inf")
            return out

    recipe = Recipe(Explodes, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11},
                    dataset=tokens, batch_size=4, tokens_per_sample=8, eval_tokens=64,
                    optimizer={"lr": 1e-2})  # fmt: skip
    sweep = finished(recipe, tmp_path / "runs.db")
    assert {run.status for run in sweep.failures} == {"diverged"}
    assert {run.size for run in sweep.failures} == {8}
    assert "at step 21. Try half the learning rate" in sweep.failures[0].message


def test_a_store_that_cannot_be_written_fails_the_sweep_not_the_runs(tiny_recipe, tmp_path):
    import sqlite3

    sweep = Sweep(tiny_recipe, tiny_plan(tiny_recipe), store=tmp_path / "runs.db")
    connection = sqlite3.connect(tmp_path / "runs.db")
    connection.execute("DROP TABLE chunks")
    connection.commit()
    connection.close()
    sweep.start()
    with pytest.raises(SweepError, match="the sweep failed: StoreError: .* no such table: chunks"):
        sweep.wait(30)
    assert sweep.state == "failed"


def test_another_recipe_is_refused_with_what_differs(tiny_recipe, tokens, tmp_path):
    sweep = finished(tiny_recipe, tmp_path / "runs.db")
    other = Recipe(TinyLM, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 12},
                   dataset=tokens, batch_size=4, tokens_per_sample=8,
                   optimizer={"lr": 1e-2}, warmup_steps=5, eval_tokens=512)  # fmt: skip
    with pytest.raises(SweepError, match="differs from the one of .* in model_kwargs"):
        Sweep.open(tmp_path / "runs.db", other)
    with pytest.raises(SweepError, match="the plan was made from another recipe"):
        Sweep(other, sweep.plan, store=tmp_path / "x.db")


def test_an_empty_store_has_no_sweep_to_open(tiny_recipe, tmp_path):
    with pytest.raises(SweepError, match="holds no sweep yet"):
        Sweep.open(tmp_path / "runs.db", tiny_recipe)


def test_an_unknown_executor_is_refused(tiny_recipe, tmp_path):
    with pytest.raises(SweepError, match="executor 'gpu' is unknown. Choose one of 'auto'"):
        Sweep(tiny_recipe, tiny_plan(tiny_recipe), store=tmp_path / "runs.db", executor="gpu")


def test_starting_twice_starts_once(tokens, tmp_path):
    gate = Gate(at=5)
    recipe = gated(tokens, gate)
    sweep = Sweep(recipe, tiny_plan(recipe), store=tmp_path / "runs.db", executor="inline")
    started = []
    sweep.events.connect(lambda e: started.append(e) if isinstance(e, RunStarted) else None)
    sweep.start()
    assert gate.reached.wait(30)
    sweep.start()
    gate.open.set()
    assert sweep.wait(60)
    assert len(started) == len(sweep.plan.runs)


def test_the_time_left_is_known_once_steps_were_taken(tokens, tmp_path):
    gate = Gate(at=150)
    recipe = gated(tokens, gate)
    sweep = Sweep(recipe, tiny_plan(recipe), store=tmp_path / "runs.db", executor="inline")
    assert np.isnan(sweep.status().eta)
    sweep.start()
    assert gate.reached.wait(30)
    status = sweep.status()
    gate.open.set()
    assert sweep.wait(60)
    assert status.n_done < status.n_runs
    assert "running" in status.runs.values()


def failing(tokens, fail):
    """A recipe whose models of width 4 train only while `fail` is empty."""

    def step(model, batch):
        if fail and model.training and model.hidden.out_features == 4:
            raise RuntimeError("not yet")
        return torch.nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    return Recipe(TinyLM, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11},
                  dataset=tokens, batch_size=4, tokens_per_sample=8, step_fn=step, flops="6ND",
                  optimizer={"lr": 1e-2}, warmup_steps=5, eval_tokens=64)  # fmt: skip


def test_a_failed_run_is_trained_again_alone(tokens, tmp_path):
    fail = []
    recipe = failing(tokens, fail)
    plan = tiny_plan(recipe, reuse="cooldown")
    expected = losses(finished(recipe, tmp_path / "a.db", plan=plan))
    fail.append(1)
    sweep = finished(recipe, tmp_path / "b.db", plan=plan)
    assert {run.size for run in sweep.failures} == {4}
    fail.clear()
    first, *others = sweep.failures
    sweep.retry(first.run_id)
    assert sweep.wait(30)
    assert losses(sweep)[first.run_id] == expected[first.run_id]
    assert len(sweep.failures) == len(others)
    with pytest.raises(SweepError, match="is finished. Only a run that diverged"):
        sweep.retry(first.run_id)
    assert sweep.start().wait(30)
    assert losses(sweep) == expected


def test_a_run_may_be_tried_with_half_the_learning_rate(tokens, tmp_path):
    fail = [1]
    recipe = failing(tokens, fail)
    sweep = finished(recipe, tmp_path / "runs.db", plan=tiny_plan(recipe, reuse="cooldown"))
    old = sweep.failures[0]
    fail.clear()
    sweep.retry(old.run_id, lr=old.lr / 2)
    assert sweep.wait(30)
    (new,) = [run for run in sweep.runs if run.lr == old.lr / 2]
    assert (new.N, new.D, new.budget) == (old.N, new.D, old.budget)
    assert old.run_id not in sweep.status().runs
    again = Sweep.open(tmp_path / "runs.db", recipe)
    assert again.plan == sweep.plan
    assert losses(again) == losses(sweep)


def test_a_run_in_training_is_skipped_within_a_step_and_taken_back(tokens, tmp_path):
    expected = losses(finished(gated(tokens, Gate(at=-1)), tmp_path / "a.db"))
    gate = Gate(at=20)
    recipe = gated(tokens, gate)
    sweep = Sweep(recipe, tiny_plan(recipe, reuse="cooldown"), store=tmp_path / "b.db",
                  executor="inline").start()  # fmt: skip
    assert gate.reached.wait(30)
    (running,) = [k for k, status in sweep.status().runs.items() if status == "running"]
    queued = [k for k, status in sweep.status().runs.items() if status == "queued"][-1]
    for run_id in (running, queued):
        assert sweep.skip(run_id).runs[run_id] == "skipped"
    with pytest.raises(SweepError, match="is skipped. Only a run that is open"):
        sweep.skip(running)
    gate.open.set()
    assert sweep.wait(30)
    assert sweep.state == "finished"
    assert sorted(run.run_id for run in sweep.failures) == sorted([running, queued])
    assert len(sweep.curve(running)[0]) == 20
    assert Sweep.open(tmp_path / "b.db", recipe).state == "finished"
    sweep.retry(running)
    assert sweep.wait(30)
    sweep.retry(queued)
    assert sweep.wait(30)
    assert sorted(losses(sweep).values()) == sorted(expected.values())


def test_a_skip_may_be_taken_back_while_the_sweep_runs(tokens, tmp_path):
    gate = Gate(at=20)
    recipe = gated(tokens, gate)
    sweep = Sweep(recipe, tiny_plan(recipe), store=tmp_path / "runs.db", executor="inline").start()
    assert gate.reached.wait(30)
    queued = [k for k, status in sweep.status().runs.items() if status == "queued"][-1]
    sweep.skip(queued)
    assert sweep.retry(queued).runs[queued] == "queued"
    gate.open.set()
    assert sweep.wait(30)
    assert queued in losses(sweep)
    with pytest.raises(SweepError, match="no run of this sweep is called 'x'"):
        sweep.retry("x")


def test_a_stored_run_takes_the_names_of_the_plan_that_asks_for_it(tiny_recipe, tmp_path):
    first = finished(tiny_recipe, tmp_path / "runs.db")
    other = Sweep(
        tiny_recipe,
        tiny_plan(tiny_recipe, reuse="cooldown", convention="matmul"),
        store=tmp_path / "runs.db",
    )
    assert other.state == "finished"
    assert np.array_equal(other.runs.N, [spec.n_params for spec in other.plan.runs])
    assert (other.runs.N < first.runs.N).all()
    assert np.array_equal(other.runs.L, first.runs.L)


def test_a_sweep_keeps_its_name_when_a_run_is_tried_at_another_rate(tokens, tmp_path):
    fail = [1]
    recipe = failing(tokens, fail)
    plan = tiny_plan(recipe, reuse="cooldown")
    sweep = finished(recipe, tmp_path / "runs.db", plan=plan)
    name = sweep.sweep_id
    fail.clear()
    old = sweep.failures[0]
    sweep.retry(old.run_id, lr=old.lr / 2)
    assert sweep.wait(30)
    assert sweep.sweep_id == name == plan.plan_id != sweep.plan.plan_id
    # The cell run again asks with the plan as it was first.
    again = Sweep(recipe, plan, store=tmp_path / "runs.db")
    assert again.plan == sweep.plan
    assert losses(again) == losses(sweep)
    opened = Sweep.open(tmp_path / "runs.db", recipe)
    assert opened.sweep_id == name


def test_a_running_sweep_is_found_by_its_plan_as_it_was_and_as_it_is(tokens, tmp_path):
    fail = [1]
    recipe = failing(tokens, fail)
    plan = tiny_plan(recipe, reuse="cooldown")
    sweep = finished(recipe, tmp_path / "runs.db", plan=plan)
    fail.clear()
    old = sweep.failures[0]
    found = []

    def look(event):
        if isinstance(event, RunFinished) and not found:
            found.extend(
                Sweep(recipe, asked, store=tmp_path / "runs.db") for asked in (plan, sweep.plan)
            )

    sweep.events.connect(look)
    sweep.retry(old.run_id, lr=old.lr / 2)
    assert sweep.wait(30)
    assert found == [sweep, sweep]


def test_cancelling_says_so_until_the_runs_are_saved(tokens, tmp_path):
    gate = Gate(at=20)
    recipe = gated(tokens, gate)
    sweep = Sweep(recipe, tiny_plan(recipe), store=tmp_path / "runs.db", executor="inline").start()
    assert gate.reached.wait(30)
    assert "cancelling: each run is saved after its step" in str(sweep.cancel())
    gate.open.set()
    assert sweep.wait(30)
    assert sweep.state == "cancelled"
    assert "cancelling" not in str(sweep.status())
