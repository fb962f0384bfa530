"""Sweeps on a GPU: by threads and by worker processes that share it, and where memory runs out."""

from __future__ import annotations

import gc

import pytest
import torch
from helpers import TinyLM, tiny_plan

from scaling_nb import Recipe, Sweep
from scaling_nb.events import RunFinished, RunStarted
from scaling_nb.executors import Job, ProcessExecutor, ThreadExecutor, choose_executor
from scaling_nb.executors.pool import POOL
from scaling_nb.executors.ranks import train_on_ranks
from scaling_nb.models import GPT, gpt_optimizer
from scaling_nb.training.control import Control
from scaling_nb.training.devices import cpu_count
from scaling_nb.training.trunk import train_trunk

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CUDA = torch.device("cuda:0")
GIB = 2**30


@pytest.fixture(autouse=True)
def whole_gpu():
    """Give back what the test limited, and what it kept."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    POOL.close()
    gc.collect()
    torch.cuda.empty_cache()


def gpt(tokens, **options) -> Recipe:
    settings = {"sizes": [32, 48, 64], "batch_size": 16, **options}
    return Recipe(GPT, size="d_model", model_kwargs={"vocab_size": 11, "context": 32},
                  dataset=tokens, tokens_per_sample=32, warmup_steps=5, eval_tokens=2048,
                  optimizer=gpt_optimizer, device="cuda:0", **settings)  # fmt: skip


def finished(recipe, path, plan, executor) -> Sweep:
    sweep = Sweep(recipe, plan, store=path, executor=executor).start()
    assert sweep.wait(200)
    assert sweep.state == "finished"
    return sweep


def losses(sweep):
    return {run.run_id: run.loss for run in sweep.runs}


def test_threads_and_processes_give_the_losses_of_one_after_another(tokens, tmp_path):
    recipe = gpt(tokens)
    plan = tiny_plan(recipe, (1e10, 2e10, 4e10), reuse="cooldown")
    assert len(plan.runs) >= 6
    expected = losses(finished(recipe, tmp_path / "a.db", plan, "inline"))
    executors = {"threads": "threads", "2 threads": ThreadExecutor(2),
                 "3 processes": ProcessExecutor(3)}  # fmt: skip
    for name, executor in executors.items():
        where: list[str] = []
        sweep = Sweep(recipe, plan, store=tmp_path / f"{name}.db", executor=executor)
        sweep.events.connect(
            lambda e, w=where: w.append(e.where) if isinstance(e, RunStarted) else None
        )
        assert sweep.start().wait(200)
        assert sweep.failures == ()
        assert set(where) == {"cuda:0"}
        # Kernels of attention may add in another order every time.
        assert losses(sweep) == pytest.approx(expected, rel=2e-3), name


@pytest.mark.parametrize("executor", [ThreadExecutor(3), ProcessExecutor(3)])
def test_runs_with_dropout_share_a_gpu_and_do_not_disturb_each_other(tokens, tmp_path, executor):
    recipe = Recipe(TinyLM, size="width", sizes=[2, 4, 8],
                    model_kwargs={"vocab_size": 11, "dropout": 0.2}, dataset=tokens, batch_size=4,
                    tokens_per_sample=8, optimizer={"lr": 1e-2}, eval_tokens=512,
                    device="cuda:0")  # fmt: skip
    plan = tiny_plan(recipe, (2e6, 4e6))
    alone = losses(finished(recipe, tmp_path / "a.db", plan, "inline"))
    assert executor.workers(recipe) == 3
    together = losses(finished(recipe, tmp_path / "b.db", plan, executor))
    assert together == pytest.approx(alone, rel=1e-5)


def hungry(gib_a_sample, limit_gib):
    """Return a step that takes so much memory where the model is 4 wide, and limits itself."""

    def step(model, batch):
        inputs, targets = batch
        if inputs.is_cuda and model.training:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(limit_gib * 2**30 / total)
            if model.hidden.out_features == 4:
                torch.empty(int(gib_a_sample * len(inputs) * 2**30), dtype=torch.uint8,
                            device=inputs.device)  # fmt: skip
        return torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    return step


def hungry_recipe(tokens, gib_a_sample, limit_gib) -> Recipe:
    return Recipe(TinyLM, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11},
                  dataset=tokens, batch_size=4, tokens_per_sample=8, flops="6ND",
                  step_fn=hungry(gib_a_sample, limit_gib), optimizer={"lr": 1e-2},
                  warmup_steps=5, eval_tokens=512, device="cuda:0")  # fmt: skip


@pytest.mark.parametrize("executor", [ThreadExecutor(2), ProcessExecutor(1)])
def test_a_run_that_the_gpu_has_no_memory_for_trains_in_smaller_pieces(tokens, tmp_path, executor):
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    modest = hungry_recipe(tokens, 0.0, 60)
    plan = tiny_plan(modest, (1e6, 2e6), reuse="cooldown")
    expected = finished(modest, tmp_path / "a.db", plan, executor)
    by_cell = {(run.size, run.budget): run.loss for run in expected.runs}
    # 4 samples at once do not fit in 6 GiB, nor do 2; one does.
    recipe = hungry_recipe(tokens, 3.5, 6)
    plan = tiny_plan(recipe, (1e6, 2e6), reuse="cooldown")
    sweep = finished(recipe, tmp_path / "b.db", plan, executor)
    assert sweep.failures == ()
    assert {run.size for run in sweep.runs} == {2, 4, 8}
    for run in sweep.runs:
        pieces = "each batch computed in 4 pieces, for memory"
        assert run.message == (pieces if run.size == 4 else "")
        assert run.loss == pytest.approx(by_cell[run.size, run.budget], rel=1e-3)
    gc.collect()
    assert torch.cuda.memory_allocated() < before + 2**24


def test_a_run_that_never_fits_fails_alone_with_the_gpus_words(tokens, tmp_path):
    recipe = hungry_recipe(tokens, 8, 6)
    plan = tiny_plan(recipe, (1e6,))
    sweep = finished(recipe, tmp_path / "runs.db", plan, "threads")
    assert {run.size for run in sweep.failures} == {4}
    assert all("out of memory" in run.message for run in sweep.failures)
    assert {run.size for run in sweep.runs} == {2, 8}


def test_a_worker_keeps_no_memory_between_jobs(tokens, tmp_path):
    """Others of the same GPU could not use it. Tests beside this one may use some GiB, too."""
    recipe = hungry_recipe(tokens, 5, 30)
    plan = tiny_plan(recipe, (1e6,))
    free, _ = torch.cuda.mem_get_info()
    assert finished(recipe, tmp_path / "runs.db", plan, ProcessExecutor(1)).failures == ()
    assert len(POOL.pids()) == 1
    assert torch.cuda.mem_get_info()[0] > free - 12 * GIB


def test_memory_that_a_sweep_takes_is_the_gpus(tokens, tmp_path):
    recipe = gpt(tokens, sizes=[256, 512], batch_size=32)
    plan = tiny_plan(recipe, (1e12, 2e12), reuse="cooldown", max_epochs=1e3)
    sweep = Sweep(recipe, plan, store=tmp_path / "runs.db", executor="threads")
    sweep.estimate()
    assert sweep.start().wait(200)
    predicted, actual = sweep.costs()
    assert actual.peak_bytes == pytest.approx(predicted.peak_bytes, rel=0.25)
    assert predicted.peak_bytes > 16 * max(spec.counts.total for spec in plan.runs)


def test_a_group_of_one_trains_what_one_process_trains(tokens):
    pytest.importorskip("accelerate")
    recipe = gpt(tokens)
    specs = tiny_plan(recipe, (1e10, 2e10), reuse="cooldown").jobs()[0]
    alone, group = [], []
    train_trunk(recipe, specs, emit=alone.append)
    train_on_ranks(recipe, Job(specs=specs), emit=group.append, control=Control(),
                   checkpointing=None, device=CUDA)  # fmt: skip
    found, expected = (
        {e.run.run_id: e.run.loss for e in events if isinstance(e, RunFinished)}
        for events in (group, alone)
    )
    assert len(found) == len(specs)
    assert found == pytest.approx(expected, rel=2e-3)


def test_auto_shares_a_gpu_among_small_models_only(tokens, tmp_path):
    recipe = gpt(tokens)
    plan = tiny_plan(recipe, (1e10, 2e10))
    made = Sweep(recipe, plan, store=tmp_path / "a.db", executor="auto")
    assert isinstance(made.executor, ProcessExecutor) == (cpu_count() > 1)
    executor, reason = choose_executor(recipe, 0, 1e13)
    assert isinstance(executor, ThreadExecutor)
    assert "GPU" in reason
