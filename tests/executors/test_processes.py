"""Worker processes: replaced when they die, fed with what a notebook defines."""

from __future__ import annotations

import copy
import dataclasses
import os
import signal
import subprocess
import threading

import numpy as np
import pytest
import torch
from helpers import TinyLM, tiny_plan

from scaling_nb import Recipe, Sweep, SweepError
from scaling_nb.events import StepLogged
from scaling_nb.executors import ProcessExecutor, ThreadExecutor, choose_executor, make_executor
from scaling_nb.executors.payload import read_recipe, write_recipe
from scaling_nb.executors.pool import POOL, WorkerPool, WorkerProcess
from scaling_nb.executors.worker import Worker, sendable


def losses(sweep):
    return {run.run_id: run.loss for run in sweep.runs}


def cross_entropy(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def recipe_of(tokens, step, **kwargs) -> Recipe:
    return Recipe(TinyLM, size="width", sizes=[2, 4, 8],
                  model_kwargs={"vocab_size": 11, **kwargs}, dataset=tokens, batch_size=4,
                  tokens_per_sample=8, step_fn=step, flops="6ND", optimizer={"lr": 1e-2},
                  warmup_steps=5, eval_tokens=512)  # fmt: skip


def test_a_killed_worker_is_replaced_and_its_run_goes_on(tiny_recipe, tmp_path):
    plan = tiny_plan(tiny_recipe, reuse="cooldown")
    expected = Sweep(tiny_recipe, plan, store=tmp_path / "a.db", executor="inline").start()
    assert expected.wait(60)
    sweep = Sweep(tiny_recipe, plan, store=tmp_path / "b.db", checkpoint_every=0.02,
                  executor=ProcessExecutor(1))  # fmt: skip
    kills = []

    def kill(event):
        if isinstance(event, StepLogged) and len(kills) < 2:
            victim = next(worker for worker in POOL._all if worker.alive)
            kills.append(victim.process.pid)
            os.kill(victim.process.pid, signal.SIGKILL)

    POOL.settle()  # those that the sweep warms are still starting
    for worker in POOL._all:
        worker.stop()
    sweep.events.connect(kill)
    assert sweep.start().wait(120)
    assert len(set(kills)) == 2
    assert sweep.state == "finished"
    assert losses(sweep) == losses(expected)
    for spec in plan.runs:
        for mine, theirs in zip(sweep.curve(spec.run_id), expected.curve(spec.run_id), strict=True):
            assert np.array_equal(mine, theirs)


@pytest.mark.slow
def test_a_job_that_kills_every_worker_fails_alone(tokens, tmp_path):
    def step(model, batch):
        if model.training and model.hidden.out_features == 4 and batch[0].device.type != "meta":
            os._exit(7)
        return cross_entropy(model, batch)

    # The probe is in this process.
    recipe = recipe_of(tokens, lambda model, batch: cross_entropy(model, batch))
    object.__setattr__(recipe, "step_fn", step)
    plan = tiny_plan(recipe, reuse="cooldown")
    sweep = Sweep(recipe, plan, store=tmp_path / "runs.db", executor=ProcessExecutor(1)).start()
    assert sweep.wait(120)
    assert {run.size for run in sweep.failures} == {4}
    assert all("exit status 7" in run.message for run in sweep.failures)
    assert {run.size for run in sweep.runs} == {2, 8}


def test_pausing_and_cancelling_reach_the_workers(tokens, tmp_path):
    recipe = recipe_of(tokens, lambda model, batch: cross_entropy(model, batch))
    plan = tiny_plan(recipe, budgets=(1e7,), reuse="cooldown")
    sweep = Sweep(recipe, plan, store=tmp_path / "runs.db", executor=ProcessExecutor(1))
    started, held = threading.Event(), []
    sweep.events.connect(lambda e: started.set() if isinstance(e, StepLogged) else None)
    sweep.start()
    assert started.wait(60)
    assert sweep.pause().state == "paused"
    threading.Event().wait(0.5)  # what was under way arrives
    held = [len(sweep.curve(spec.run_id)[0]) for spec in plan.runs]
    threading.Event().wait(0.3)
    assert [len(sweep.curve(spec.run_id)[0]) for spec in plan.runs] == held
    assert list((tmp_path / "runs.checkpoints").glob("*.pt"))
    sweep.resume()
    sweep.cancel()
    assert sweep.wait(60)
    assert sweep.state == "cancelled"


def test_runs_with_dropout_train_side_by_side(tokens, tmp_path):
    recipe = Recipe(TinyLM, size="width", sizes=[2, 4],
                    model_kwargs={"vocab_size": 11, "dropout": 0.2}, dataset=tokens, batch_size=4,
                    tokens_per_sample=8, optimizer={"lr": 1e-2}, eval_tokens=64)  # fmt: skip
    assert ProcessExecutor(2).workers(recipe) == 2
    plan = tiny_plan(recipe, budgets=(1e6,))
    results = []
    for executor in (ProcessExecutor(2), "inline"):
        sweep = Sweep(recipe, plan, store=tmp_path / f"{len(results)}.db", executor=executor)
        assert sweep.start().wait(60)
        results.append(losses(sweep))
    assert results[0] == results[1]


def test_a_class_that_is_defined_on_the_spot_is_trained(tokens, tmp_path):
    class Mine(TinyLM):
        def forward(self, tokens):
            return 2 * super().forward(tokens)

    recipe = Recipe(Mine, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11},
                    dataset=tokens, batch_size=4, tokens_per_sample=8,
                    optimizer={"lr": 1e-2}, eval_tokens=64)  # fmt: skip
    plan = tiny_plan(recipe, budgets=(1e6,))
    sweep = Sweep(recipe, plan, store=tmp_path / "a.db", executor=ProcessExecutor(1)).start()
    assert sweep.wait(60)
    assert len(sweep.runs) == len(plan.runs)


def test_arrays_travel_whole_and_files_by_name(tokens, tmp_path):
    recipe = recipe_of(tokens, cross_entropy)
    write_recipe(recipe, tmp_path)
    here, there = recipe.data.source, read_recipe(tmp_path).data.source
    assert np.array_equal(there.tokens, here.tokens)
    there.tokens[:] = 0
    assert here.tokens.any()
    np.save(tmp_path / "tokens.npy", np.tile(tokens, 25))
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    recipe = recipe_of(mapped, cross_entropy)
    assert isinstance(recipe.data.source.tokens.base, np.memmap | np.ndarray)
    write_recipe(recipe, tmp_path)
    assert (tmp_path / "arrays.bin").stat().st_size < 100_000
    assert np.array_equal(read_recipe(tmp_path).data.source.tokens, recipe.data.source.tokens)


def test_auto_takes_processes_where_it_can_and_says_why(tiny_recipe, tokens, monkeypatch):
    monkeypatch.setattr("scaling_nb.training.devices.cpu_count", lambda: 2)
    tiny_recipe = dataclasses.replace(tiny_recipe, device="cpu")
    executor, reason = make_executor("auto", tiny_recipe)
    assert isinstance(executor, ProcessExecutor)
    assert "2 cores" in reason
    executor, reason = choose_executor(tiny_recipe, largest_run=2**50)
    assert isinstance(executor, ThreadExecutor)
    assert "2 processes would need" in reason
    lock = threading.Lock()

    def step(model, batch):
        with lock:
            return cross_entropy(model, batch)

    executor, reason = choose_executor(recipe_of(tokens, step))
    assert isinstance(executor, ThreadExecutor)
    assert "cannot be sent to worker processes: TypeError: cannot pickle" in reason
    monkeypatch.setattr("scaling_nb.training.devices.cpu_count", lambda: 1)
    assert choose_executor(tiny_recipe)[1] == "there is one core"


@pytest.fixture
def on_a_gpu(tiny_recipe, monkeypatch):
    """The recipe as if it trained on one GPU of 20 GiB, beside 16 cores and 64 GiB."""
    free = {"cpu": 64 * 2**30, "cuda": 20 * 2**30}
    module = "scaling_nb.executors.auto"
    monkeypatch.setattr(f"{module}.worker_devices", lambda device: [torch.device("cuda", 0)])
    monkeypatch.setattr(f"{module}.free_memory", lambda device: free[device.type])
    monkeypatch.setattr(f"{module}.cpu_count", lambda: 16)
    recipe = copy.copy(tiny_recipe)
    object.__setattr__(recipe, "device", torch.device("cuda"))
    return recipe


def test_auto_shares_a_gpu_among_small_models(on_a_gpu, monkeypatch):
    executor, reason = choose_executor(on_a_gpu, 10 * 2**20, 1e11)
    assert isinstance(executor, ProcessExecutor)
    assert executor.n_workers == 8
    assert "8 processes share each" in reason
    few, _ = choose_executor(on_a_gpu, 4 * 2**30, 1e11)  # what fits into the device's memory
    assert isinstance(few, ProcessExecutor)
    assert 2 <= few.n_workers < 5
    for largest_run, step, why in (
        (0, None, "one thread keeps each busy"),  # nothing is planned yet
        (0, 1e12, "a step is up to 1e"),
        (2**40, 1e11, "do not suffice"),
    ):
        executor, reason = choose_executor(on_a_gpu, largest_run, step)
        assert isinstance(executor, ThreadExecutor)
        assert why in reason
    monkeypatch.setattr("scaling_nb.executors.auto.cpu_count", lambda: 1)
    assert isinstance(choose_executor(on_a_gpu, 0, 1e11)[0], ThreadExecutor)


def test_a_recipe_that_cannot_travel_fails_the_sweep_with_the_remedy(tokens, tmp_path):
    lock = threading.Lock()

    def step(model, batch):
        with lock:
            return cross_entropy(model, batch)

    recipe = recipe_of(tokens, step)
    sweep = Sweep(recipe, tiny_plan(recipe), store=tmp_path / "a.db", executor="processes").start()
    with pytest.raises(SweepError, match='cannot be sent .* Use executor="threads"'):
        sweep.wait(60)


def test_a_worker_that_cannot_start_says_what_it_printed(monkeypatch):
    monkeypatch.setattr("scaling_nb.executors.pool._WORKER", "raise ImportError('no torch')")
    worker = WorkerProcess()
    with pytest.raises(SweepError, match="did not start: exit status 1, ImportError: no torch"):
        worker.connect()
    worker.stop()


def test_a_worker_that_dies_before_it_has_its_key_says_what_it_printed(monkeypatch):
    class Late(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.wait()

    monkeypatch.setattr("scaling_nb.executors.pool._WORKER", "raise ImportError('no torch')")
    monkeypatch.setattr("scaling_nb.executors.pool.subprocess.Popen", Late)
    worker = WorkerProcess()
    with pytest.raises(SweepError, match="did not start: exit status 1, ImportError: no torch"):
        worker.connect()
    worker.stop()


def test_what_is_timed_waits_for_workers_that_are_warming():
    pool = WorkerPool()
    try:
        pool.warm(1)
        pool.settle()
        (worker,) = pool._idle
        assert worker.connected
        pool.settle()
        assert pool.borrow() is worker
    finally:
        pool.close()


def test_what_a_job_said_is_not_lost_where_a_gpu_works_no_more(monkeypatch):
    """After a device-side assert every call of CUDA raises, that which frees memory too."""

    def broken():
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", broken)
    monkeypatch.setattr(Worker, "_train", lambda self, task: "the outcome")
    assert Worker.train(object.__new__(Worker), None) == "the outcome"


def test_an_error_travels_without_what_its_traceback_holds():
    try:
        raise ValueError("a label is out of range")
    except ValueError as error:
        sent = sendable(error)
    assert isinstance(sent, ValueError)
    assert str(sent) == "a label is out of range"
    assert sent.__traceback__ is None
