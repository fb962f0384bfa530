"""What training promises holds on a GPU: numbers, generators, memory, and no waiting."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import TinyLM, tiny_plan
from run_events import curves, ended
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scaling_nb import Recipe
from scaling_nb.models import GPT, gpt_optimizer
from scaling_nb.training.batches import move
from scaling_nb.training.checkpoint import Checkpoint, checkpoint_key
from scaling_nb.training.control import Control, Stopped
from scaling_nb.training.devices import DeviceMemory, power_limit
from scaling_nb.training.trainer import Trainer
from scaling_nb.training.trunk import train_trunk

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CUDA = torch.device("cuda:0")
# Without it torch refuses products where it is asked for algorithms that repeat exactly.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture
def exact():
    """Have torch choose algorithms that repeat bit for bit."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def gpt(tokens, device="cuda:0", **options) -> Recipe:
    settings = {"sizes": [32, 64], "batch_size": 16, "optimizer": gpt_optimizer, **options}
    return Recipe(GPT, size="d_model", model_kwargs={"vocab_size": 11, "context": 32},
                  dataset=tokens, tokens_per_sample=32, warmup_steps=5, eval_tokens=2048,
                  device=device, **settings)  # fmt: skip


def dropping(tokens, dropout=0.2) -> Recipe:
    return Recipe(TinyLM, size="width", sizes=[4, 8],
                  model_kwargs={"vocab_size": 11, "dropout": dropout}, dataset=tokens,
                  batch_size=4, tokens_per_sample=8, optimizer={"lr": 1e-2}, warmup_steps=5,
                  eval_tokens=512, device="cuda:0")  # fmt: skip


def losses(trainer, steps) -> list[float]:
    found: list[float] = []
    trainer.train(steps, 100, report=lambda piece: found.extend(piece.loss.tolist()))
    return found


def test_the_first_steps_are_those_of_the_cpu(tokens):
    here, there = (Trainer(gpt(tokens, d), 64, seed=3, lr=None) for d in ("cpu", "cuda:0"))
    assert next(there.model.parameters()).device == CUDA
    np.testing.assert_allclose(losses(there, 20), losses(here, 20), rtol=0, atol=2e-3)
    assert there.evaluate() == pytest.approx(here.evaluate(), abs=2e-3)


def half_step(model, batch):
    inputs, targets = batch
    with torch.autocast("cuda", torch.bfloat16, enabled=inputs.is_cuda):
        outputs = model(inputs)
        return torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


HALF = [{"step_fn": half_step}, {"precision": "bf16"}]


@pytest.mark.parametrize("options", HALF, ids=["step_fn", "precision"])
def test_a_recipe_that_computes_in_bf16_trains(tokens, options):
    full, half = gpt(tokens), gpt(tokens, **options)
    size = half.inspect_size(64)
    assert size.flops_per_token == full.inspect_size(64).flops_per_token
    expected, found = (losses(Trainer(r, 64, seed=3, lr=None), 60) for r in (full, half))
    assert found != expected
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05)
    assert found[-1] < found[0] - 0.3


class Interrupt(Control):
    """Cancels before the n-th step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.steps, self.at = 0, at

    def refresh(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            self.cancel()


@pytest.mark.parametrize("make", [gpt, dropping], ids=["gpt", "dropout"])
def test_an_interrupted_job_ends_bit_for_bit_the_same(tokens, tmp_path, exact, make):
    recipe = make(tokens)
    budgets = (1e10, 2e10) if make is gpt else (1e6, 2e6)
    job = tiny_plan(recipe, budgets, reuse="cooldown").jobs()[0]
    expected: list = []
    train_trunk(recipe, job, emit=expected.append)
    assert len(ended(expected)) == len(job) == 2
    place, events, stops = Checkpoint(tmp_path, checkpoint_key(job[0])), [], 0
    step = max(spec.n_steps for spec in job) // 5
    while todo := [spec for spec in job if spec.run_id not in ended(events)]:
        torch.rand(3, device=CUDA)
        try:
            train_trunk(
                recipe, todo, emit=events.append, control=Interrupt(step + stops), checkpoint=place
            )
        except Stopped:
            stops += 1
    assert stops >= 4
    assert ended(events) == ended(expected)
    assert curves(events) == curves(expected)


def test_the_gpus_generator_is_left_as_it_was(tokens):
    torch.cuda.manual_seed(5)
    torch.rand(7, device=CUDA)
    before = torch.cuda.get_rng_state(CUDA)
    recipe = dropping(tokens)
    assert recipe.probed.draws_random
    trainer = Trainer(recipe, 8, seed=1, lr=1e-2)
    once = losses(trainer, 30)
    trainer.evaluate()
    assert torch.equal(before, torch.cuda.get_rng_state(CUDA))
    torch.rand(100, device=CUDA)
    assert losses(Trainer(recipe, 8, seed=1, lr=1e-2), 30) == pytest.approx(once, rel=1e-5)
    without = losses(Trainer(dropping(tokens, 1e-9), 8, seed=1, lr=1e-2), 30)
    assert without != pytest.approx(once, rel=1e-3)


_FRESH = """
import numpy as np, torch
from helpers import TinyLM, tiny_plan
from scaling_nb import Recipe
torch.manual_seed(42)
recipe = Recipe(TinyLM, size="width", sizes=[4, 8], model_kwargs={"vocab_size": 11},
                dataset=np.arange(9000) % 11, batch_size=4, tokens_per_sample=8,
                optimizer={"lr": 1e-2}, eval_tokens=64, device="cuda:0")
assert not torch.cuda.is_initialized()
drawn = torch.rand(3, device="cuda:0") if DRAW_FIRST else None
estimate = recipe.measure_step(4, lr=1e-2)
assert estimate.peak_bytes > 0
drawn = torch.rand(3, device="cuda:0") if drawn is None else drawn
torch.manual_seed(42)
assert torch.equal(drawn, torch.rand(3, device="cuda:0")), drawn
"""


@pytest.mark.parametrize("draw_first", [True, False])
def test_a_gpu_that_was_never_used_is_measured_and_keeps_its_persons_seed(draw_first):
    script = _FRESH.replace("DRAW_FIRST", str(draw_first))
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    ran = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr


def test_a_batch_is_sent_while_the_gpu_works():
    windows = torch.arange(64 * 1025).reshape(64, 1025)
    batch = (windows[:, :-1], windows[:, 1:])
    move(batch, CUDA)  # pinned memory is allocated once
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)
    works = torch.cuda.Event()
    works.record()
    moved = move(batch, CUDA)
    assert not works.query()
    assert all(torch.equal(a.cpu(), b) for a, b in zip(moved, batch, strict=True))
    assert works.query()


@pytest.mark.parametrize("options", [{}, *HALF], ids=["fp32", "step_fn", "precision"])
def test_a_step_does_not_wait_for_the_gpu(tokens, options):
    trainer = Trainer(gpt(tokens, **options), 64, seed=0, lr=None)
    losses(trainer, 3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            trainer._take_step(100)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.step == 6


def test_flop_are_those_of_the_cpu_and_those_that_are_executed(tokens):
    here, there = gpt(tokens, "cpu"), gpt(tokens)
    counted = here.inspect_size(64)
    assert there.inspect_size(64) == counted
    trainer = Trainer(there, 64, seed=0, lr=None)
    batch = move(there.sample_batch(), CUDA)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        there.loss(trainer.model, batch).backward()
    executed = counter.get_total_flops()
    assert executed == pytest.approx(counted.flops_per_token * there.tokens_per_step, rel=1e-6)


def test_memory_is_foreseen(tokens):
    recipe = gpt(tokens, sizes=[256, 512], batch_size=32)
    cost = recipe.measure_step(512)
    gc.collect()
    memory = DeviceMemory([CUDA])
    trainer = Trainer(recipe, 512, seed=0, lr=None)
    losses(trainer, 10)
    trainer.evaluate()
    most = memory.taken()[0]
    before = torch.cuda.memory_allocated(CUDA)
    kept = trainer.snapshot()
    took = torch.cuda.memory_allocated(CUDA) - before
    assert kept.step == 10
    assert cost.snapshot_bytes == pytest.approx(took, rel=0.1)
    del kept, trainer
    left = memory.kept()[0]  # room for cuBLAS, 32 MiB a library
    assert left < 70 * 2**20
    assert cost.peak_bytes == pytest.approx(most - left, rel=0.1)


def test_power_is_the_drivers_limit_or_unknown(tokens):
    watts = power_limit(CUDA)
    assert watts is None or 20 < watts < 3000
    assert gpt(tokens).measure_step(32).watts == watts


def test_work_on_a_gpu_has_it_as_the_current_one(tokens):
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    seen = set()

    def step(model, batch):
        if batch[0].is_cuda:
            seen.add(torch.cuda.current_device())
        return half_step(model, batch)

    trainer = Trainer(gpt(tokens, last, step_fn=step), 32, seed=0, lr=None)
    losses(trainer, 2)
    trainer.evaluate()
    assert seen == {last.index}
