"""Runs train what they say they train; branches equal runs that trained alone."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import numpy as np
import pytest
import torch
from helpers import TinyLM, tiny_plan

from scaling_nb import Recipe
from scaling_nb.events import RunFailed, RunFinished, RunStarted, StepLogged
from scaling_nb.training.control import Control, Stopped
from scaling_nb.training.trunk import train_trunk


def train(recipe, specs):
    events = []
    train_trunk(recipe, specs, emit=events.append)
    return events


def ended(events):
    return {e.run.run_id: e.run for e in events if isinstance(e, RunFinished | RunFailed)}


def curves(events):
    parts: dict[str, list[StepLogged]] = {}
    for event in events:
        if isinstance(event, StepLogged):
            parts.setdefault(event.run_id, []).append(event)
    return {
        run_id: (np.concatenate([p.tokens for p in ps]), np.concatenate([p.loss for p in ps]))
        for run_id, ps in parts.items()
    }


class Meter:
    """Counts what really goes through a model in training: the instrument of the tests below."""

    def __init__(self) -> None:
        self.trained = 0

    def build(self, width: int, **kwargs) -> TinyLM:
        meter = self

        class Metered(TinyLM):
            def forward(self, tokens):
                if self.training:
                    meter.trained += tokens.numel()
                return super().forward(tokens)

        return Metered(width, **kwargs)


def metered(tokens, meter) -> Recipe:
    return Recipe(meter.build, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11},
                  dataset=tokens, batch_size=4, tokens_per_sample=8, optimizer={"lr": 1e-2},
                  warmup_steps=5, eval_tokens=512)  # fmt: skip


def test_each_run_trains_its_tokens_and_spends_its_compute(tokens):
    meter = Meter()
    recipe = metered(tokens, meter)
    plan = tiny_plan(recipe)
    assert len(plan.runs) >= 6
    for spec in plan.runs:
        meter.trained = 0
        run = ended(train(recipe, [spec]))[spec.run_id]
        assert meter.trained == spec.n_tokens == run.D
        assert (
            run.C == spec.compute == meter.trained * recipe.inspect_size(spec.size).flops_per_token
        )
        # The budget is met to the last whole batch.
        batch = spec.tokens_per_step * spec.flops_per_token
        assert spec.budget - batch < run.C <= spec.budget


def test_a_trunk_trains_less_than_its_runs_alone(tokens):
    meter = Meter()
    recipe = metered(tokens, meter)
    job = tiny_plan(recipe, reuse="cooldown").jobs()[0]
    assert len(job) == 3
    meter.trained = 0
    train(recipe, job)
    assert meter.trained < 0.7 * sum(spec.n_tokens for spec in job)
    assert meter.trained == pytest.approx(
        job[-1].n_tokens + 0.2 * sum(spec.n_tokens for spec in job[:-1]), rel=0.02
    )


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_branch_equals_a_run_that_trained_alone(tokens, dropout):
    recipe = Recipe(TinyLM, size="width", sizes=[4, 8],
                    model_kwargs={"vocab_size": 11, "dropout": dropout}, dataset=tokens,
                    batch_size=4, tokens_per_sample=8, optimizer={"lr": 1e-2},
                    warmup_steps=5, eval_tokens=512)  # fmt: skip
    job = tiny_plan(recipe, reuse="cooldown").jobs()[0]
    together = train(recipe, job)
    for spec in job:
        alone = train(recipe, [spec])
        assert ended(alone)[spec.run_id].loss == ended(together)[spec.run_id].loss
        for one, other in zip(
            curves(alone)[spec.run_id], curves(together)[spec.run_id], strict=True
        ):
            assert np.array_equal(one, other)


def test_a_curve_has_every_step_once(tiny_recipe):
    job = tiny_plan(tiny_recipe, reuse="cooldown").jobs()[0]
    events = train(tiny_recipe, job)
    for spec in job:
        tokens, _ = curves(events)[spec.run_id]
        expected = np.arange(1, spec.n_steps + 1) * spec.tokens_per_step
        assert np.array_equal(tokens, expected)
    assert [e.spec for e in events if isinstance(e, RunStarted)] == list(job)


def failing_step(at, error):
    seen = []

    def step(model, batch):
        seen.append(1)
        if len(seen) == at:
            raise error
        return torch.nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    return step, seen


def stepping(tokens, step) -> Recipe:
    return Recipe(TinyLM, size="width", sizes=[4], model_kwargs={"vocab_size": 11},
                  dataset=tokens, batch_size=4, tokens_per_sample=8, step_fn=step, flops="6ND",
                  optimizer={"lr": 1e-2}, warmup_steps=5, eval_tokens=512)  # fmt: skip


def test_an_error_in_the_users_code_fails_the_run_and_keeps_its_traceback(tokens):
    step, seen = failing_step(40, KeyError("my bug"))
    recipe = stepping(tokens, step)
    spec = tiny_plan(recipe).runs[0]
    seen.clear()
    events = train(recipe, [spec])
    failed = next(e for e in events if isinstance(e, RunFailed))
    assert failed.run.status == "failed"
    assert failed.run.message == "KeyError: 'my bug'"
    assert "in step" in failed.traceback


def test_what_goes_wrong_in_a_cooldown_leaves_the_trunk_standing(tokens):
    step, seen = failing_step(10**9, None)
    recipe = stepping(tokens, step)
    job = tiny_plan(recipe, reuse="cooldown").jobs()[0]
    good = ended(train(recipe, job))
    step, seen = failing_step(job[0].n_steps - 1, ValueError("once"))
    recipe = stepping(tokens, step)
    job = [dataclasses.replace(spec, recipe_id=recipe.recipe_id) for spec in job]
    seen.clear()
    runs = ended(train(recipe, job))
    assert [runs[s.run_id].status for s in job] == ["failed", "finished", "finished"]
    assert [runs[s.run_id].loss for s in job[1:]] == [r.loss for r in list(good.values())[1:]]


def test_stopping_takes_effect_between_two_steps(tokens):
    control, taken = Control(), []

    def step(model, batch):
        taken.append(1)
        if len(taken) == 25:
            control.cancel()
        return torch.nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    recipe = stepping(tokens, step)
    job = tiny_plan(recipe, reuse="cooldown").jobs()[0]
    taken.clear()
    events = []
    with pytest.raises(Stopped):
        train_trunk(recipe, job, emit=events.append, control=control)
    assert len(curves(events)[job[0].run_id][0]) == 25
    assert {run.status for run in ended(events).values()} == {"cancelled"}


def test_a_job_that_has_ended_keeps_no_memory(tokens):
    """On a GPU the next job's weights would lie beside its own until Python looks for garbage."""
    built = []

    def build(width):
        model = TinyLM(width, vocab_size=11)
        built.append(weakref.ref(model))
        return model

    recipe = Recipe(build, size="width", sizes=[4], dataset=tokens, batch_size=4,
                    tokens_per_sample=8, optimizer={"lr": 1e-2}, warmup_steps=5,
                    eval_tokens=512)  # fmt: skip
    job = tiny_plan(recipe, reuse="cooldown").jobs()[0]
    gc.collect()
    built.clear()
    gc.disable()
    try:
        train(recipe, job)
        assert [model() for model in built] == [None]
    finally:
        gc.enable()
