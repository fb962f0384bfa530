"""The Ray executor on a cluster of one: workers that die, drivers that leave, pauses."""

from __future__ import annotations

import importlib.util
import signal
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from helpers import TinyLM, tiny_plan

import scaling_nb as snb
from scaling_nb.errors import SweepError
from scaling_nb.events import Noted, RunStarted, StepLogged
from scaling_nb.executors import JobQueue, RayExecutor
from scaling_nb.executors.ray_host import Terms, gathering_seconds
from scaling_nb.training.control import Control


def plan_of(recipe):
    return tiny_plan(recipe, (4e6, 2.4e7), reuse="cooldown", max_epochs=1e3)


@pytest.fixture
def here(tiny_recipe, tmp_path):
    sweep = snb.Sweep(
        tiny_recipe, plan_of(tiny_recipe), store=tmp_path / "here.db", executor="inline"
    ).start()
    assert sweep.wait(120)
    return sweep


def there(recipe, path, **options):
    return snb.Sweep(recipe, plan_of(recipe), store=path, executor="ray", checkpoint_every=0.02)


def assert_same(sweep, here):
    assert sweep.runs.run_ids == here.runs.run_ids
    assert sweep.runs.L.tolist() == here.runs.L.tolist()
    for run_id in here.runs.run_ids:
        for got, expected in zip(sweep.curve(run_id), here.curve(run_id), strict=True):
            np.testing.assert_array_equal(got, expected)


def workers_in_training():
    return [p for p in psutil.process_iter() if p.name().startswith("ray::size=")]


def test_a_killed_worker_loses_nothing(tiny_recipe, here, tmp_path):
    sweep, notes, killed = there(tiny_recipe, tmp_path / "there.db"), [], threading.Event()

    def react(event):
        if isinstance(event, Noted):
            notes.append(event.message)
        if isinstance(event, StepLogged) and not killed.is_set():
            for process in workers_in_training():
                process.send_signal(signal.SIGKILL)
                killed.set()

    sweep.events.connect(react)
    sweep.start()
    assert sweep.wait(120)
    assert killed.is_set()
    assert any("tried again" in note for note in notes)
    assert_same(sweep, here)


@pytest.mark.slow
def test_runs_go_on_without_the_notebook_and_are_found_again(tiny_recipe, here, tmp_path):
    path = tmp_path / "there.db"
    sweep, began = there(tiny_recipe, path), threading.Event()
    sweep.events.connect(lambda e: began.set() if isinstance(e, StepLogged) else None)
    sweep.start()
    assert began.wait(60)
    sweep.leave()
    sweep.wait(60)
    assert sweep.state == "cancelled"
    left = len(sweep.runs)
    sweep.store.close()
    again = snb.Sweep.open(path, tiny_recipe, executor="ray").start()
    assert again.wait(120)
    assert left < len(again.runs)
    assert_same(again, here)


@pytest.mark.slow
def test_a_pause_gives_the_cluster_back(tiny_recipe, here, tmp_path):
    sweep, began = there(tiny_recipe, tmp_path / "there.db"), threading.Event()
    starts = []

    def react(event):
        if isinstance(event, RunStarted):
            starts.append(event.spec.run_id)
        if isinstance(event, RunStarted) and event.spec.budget == 2.4e7 and not began.is_set():
            began.set()
            sweep.pause()

    sweep.events.connect(react)
    sweep.start()
    assert began.wait(60)
    import ray

    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        threading.Event().wait(0.05)  # what pytest's time limit ends
    assert sweep.state == "paused"
    sweep.resume()
    assert sweep.wait(120)
    assert len(starts) > len(set(starts))  # released and started again, elsewhere or here
    assert_same(sweep, here)
    assert all("cpu" in where for where in sweep.status().where.values())


@pytest.mark.slow
def test_what_a_run_prints_and_why_it_fails_reach_the_notebook_and_it_is_tried_again(
    tokens, tmp_path, capfd
):
    broken = tmp_path / "broken"
    broken.touch()

    class Fragile(TinyLM):
        def forward(self, x):
            if self.training and self.head.in_features == 4 and broken.exists():
                print("about to fail", flush=True)
                raise ArithmeticError("my bug")
            return super().forward(x)

    recipe = snb.Recipe(
        Fragile, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11}, dataset=tokens,
        batch_size=4, tokens_per_sample=8, optimizer={"lr": 1e-2}, eval_tokens=64,
    )  # fmt: skip
    broken.unlink()
    plan = tiny_plan(recipe, (1e6, 2e6))
    broken.touch()
    sweep = snb.Sweep(recipe, plan, store=tmp_path / "there.db", executor="ray").start()
    assert sweep.wait(120)
    failed = [run.run_id for run in sweep.failures]
    assert {run.size for run in sweep.failures} == {4}
    assert 'raise ArithmeticError("my bug")' in sweep.traceback(failed[0])
    told, until = "", time.monotonic() + 20
    while "about to fail" not in told and time.monotonic() < until:
        told += "".join(capfd.readouterr())
        time.sleep(0.1)
    assert "about to fail" in told
    broken.unlink()
    for run_id in failed:
        sweep.retry(run_id)
    assert sweep.wait(120)
    assert len(sweep.runs) == len(plan.runs)


def test_a_driver_that_was_replaced_does_not_end_the_others_host(tiny_recipe, tmp_path):
    import ray

    sweep, began = there(tiny_recipe, tmp_path / "there.db"), threading.Event()
    sweep.events.connect(lambda e: began.set() if isinstance(e, StepLogged) else None)
    sweep.start()
    assert began.wait(60)
    names = ray.util.list_named_actors(all_namespaces=True)
    host = ray.get_actor(**next(name for name in names if name["name"].startswith("sweep-")))
    terms = Terms(
        resources={}, device="cpu", batch_size=4, recipe_id=tiny_recipe.recipe_id,
        checkpointing=None, path=(),
    )  # fmt: skip
    driver, _ = ray.get(host.attach.remote(terms, (b"", []), []))
    with pytest.raises(SweepError, match="another kernel attends"):
        sweep.wait(60)
    assert isinstance(ray.get(host.take.remote(driver)), list)
    ray.kill(host)


def test_a_recipe_that_no_worker_can_read_says_so(tokens, tmp_path):
    class Hermit(TinyLM):
        def __init__(self, width, *, vocab_size, **options):
            super().__init__(width, vocab_size=vocab_size, **options)

    recipe = snb.Recipe(
        Hermit, size="width", sizes=[2, 4], model_kwargs={"vocab_size": 11}, dataset=tokens,
        batch_size=4, tokens_per_sample=8, optimizer={"lr": 1e-2}, eval_tokens=64,
        loss_fn=_only_here,
    )  # fmt: skip
    sweep = snb.Sweep(
        recipe, tiny_plan(recipe, (1e6,)), store=tmp_path / "there.db", executor="ray"
    ).start()
    with pytest.raises(SweepError, match="Install what it imports on every node") as said:
        sweep.wait(120)
    assert "Traceback" not in str(said.value)


def _only_here(outputs, targets):
    import torch

    return torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


# Pickled by name, as what a person imports is; no worker has this module.
_only_here.__module__ = "of_this_process_alone"
sys.modules["of_this_process_alone"] = type(sys)("of_this_process_alone")
sys.modules["of_this_process_alone"]._only_here = _only_here  # type: ignore[attr-defined]


def test_without_ray_the_pip_line_is_said(tiny_recipe, monkeypatch):
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ray" else known(name)
    )
    with pytest.raises(SweepError, match=r"pip install 'scaling_nb\[ray\]'"):
        RayExecutor()


def test_an_order_that_is_given_ahead_of_the_start_is_obeyed(tiny_recipe):
    control = Control()
    control.cancel()
    queue = JobQueue([])
    RayExecutor().run(tiny_recipe, queue, emit=print, control=control)


def test_many_runs_gather_before_they_tell():
    assert gathering_seconds(1) == gathering_seconds(100) < 0.1
    for n in (300, 1_000, 10_000):
        assert n / gathering_seconds(n) == pytest.approx(600)
