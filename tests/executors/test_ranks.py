"""Runs that several devices train together: here two CPU processes under ``torchrun``."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch
from helpers import TinyLM, tiny_plan

import scaling_nb as snb
from scaling_nb.errors import RecipeError
from scaling_nb.executors.ranks import visible_devices


def recipe(tokens, devices=1, **options):
    settings = {"sizes": [4, 8], "batch_size": 4, "optimizer": {"lr": 1e-2}, **options}
    return snb.Recipe(
        TinyLM,
        size="width",
        model_kwargs={"vocab_size": 11},
        dataset=tokens,
        tokens_per_sample=8,
        eval_tokens=512,
        device="cpu",
        devices=devices,
        **settings,
    )


def trained(recipe, plan, path, executor="inline"):
    sweep = snb.Sweep(recipe, plan, store=path, executor=executor).start()
    assert sweep.wait(timeout=200)
    return sweep


def test_a_sweep_on_two_devices_gives_the_numbers_of_one(tokens, tmp_path):
    alone, together = recipe(tokens), recipe(tokens, devices=2)
    assert alone.recipe_id == together.recipe_id
    plan = tiny_plan(alone, (2e6, 4e6), reuse="cooldown")
    one = trained(alone, plan, tmp_path / "one.db")
    two = trained(together, dataclasses.replace(plan, recipe=together), tmp_path / "two.db")
    assert list(one.runs.run_ids) == list(two.runs.run_ids)
    np.testing.assert_allclose(two.runs.L, one.runs.L, rtol=0, atol=1e-6)
    for run_id in one.runs.run_ids:
        (t1, l1), (t2, l2) = one.curve(run_id), two.curve(run_id)
        np.testing.assert_array_equal(t1, t2)
        np.testing.assert_allclose(l2, l1, rtol=0, atol=1e-5)
    notes = {run.message for run in two._ended()}
    assert notes == {"trained on 2 devices together"}


@pytest.mark.slow
def test_two_devices_of_a_cluster_give_the_numbers_of_one(tokens, tmp_path):
    alone, together = recipe(tokens), recipe(tokens, devices=2)
    plan = tiny_plan(alone, (2e6,))
    one = trained(alone, plan, tmp_path / "one.db")
    executor = snb.RayExecutor(storage=f"file://{tmp_path}/shared")
    assert executor.needs(together)["num_cpus"] == 2
    plan = dataclasses.replace(plan, recipe=together)
    two = trained(together, plan, tmp_path / "two.db", executor)
    np.testing.assert_allclose(two.runs.L, one.runs.L, rtol=0, atol=1e-6)
    assert {run.message for run in two._ended()} == {"trained on 2 devices together"}


def test_a_run_that_diverges_ends_alone_and_the_rest_are_trained(tokens, tmp_path):
    """The ranks part where one run fails; they meet again for the others."""

    def step(model, batch):
        out = model(batch[0])
        loss = torch.nn.functional.cross_entropy(out.flatten(0, 1), batch[1].flatten())
        wide = model.hidden.weight.shape[0] == 8
        return loss * float("nan") if wide and model.training else loss

    together = recipe(tokens, devices=2, step_fn=step, flops="6ND")
    plan = tiny_plan(together, (2e6,), min_steps=5)
    sweep = trained(together, plan, tmp_path / "runs.db")
    ended = {run.size: run.status for run in sweep._ended()}
    assert ended == {4: "finished", 8: "diverged"}


@pytest.mark.slow
def test_a_pause_frees_the_devices_and_the_run_goes_on_the_same(tokens, tmp_path):
    alone, together = recipe(tokens), recipe(tokens, devices=2)
    plan = tiny_plan(alone, (6e6,))
    whole = trained(together, dataclasses.replace(plan, recipe=together), tmp_path / "whole.db")
    sweep = snb.Sweep(
        together,
        dataclasses.replace(plan, recipe=together),
        store=tmp_path / "paused.db",
        executor="inline",
    )
    began = threading.Event()

    def pause_once(event):
        if type(event).__name__ == "StepLogged" and not began.is_set():
            began.set()
            sweep.pause()

    sweep.events.connect(pause_once)
    sweep.start()
    assert began.wait(60)
    assert sweep.state == "paused"
    sweep.resume()
    assert sweep.wait(timeout=200)
    assert sweep.runs.L.tolist() == whole.runs.L.tolist()


def test_a_batch_that_devices_cannot_share_is_refused_before_anything_runs(tokens):
    with pytest.raises(RecipeError, match="a multiple of 3"):
        recipe(tokens, devices=3)
    with pytest.raises(RecipeError, match="devices is 0"):
        recipe(tokens, devices=0)


def test_a_group_sees_its_own_gpus_alone(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert visible_devices(torch.device("cuda:2"), 2) == {"CUDA_VISIBLE_DEVICES": "6,7"}
    assert visible_devices(torch.device("cpu"), 2) == {}
