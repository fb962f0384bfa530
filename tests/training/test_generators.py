"""The generators that all threads share are lent by turns, and put back."""

from __future__ import annotations

import random
import signal
import threading

import numpy as np
import pytest
import torch
from helpers import TinyLM, tiny_plan

from scaling_nb import Recipe, Sweep
from scaling_nb.events import StepLogged
from scaling_nb.training.generators import GLOBAL_GENERATOR, OwnGenerators, Turns, seeded_globals


def draws() -> list[float]:
    return [float(torch.rand(1)), random.random(), float(np.random.rand())]  # noqa: NPY002


def test_own_generators_draw_as_if_they_were_alone():
    with seeded_globals(3):
        alone = [draws() for _ in range(4)]
    own = OwnGenerators(3)
    before = torch.get_rng_state()
    with own.inside():
        first = draws()
    assert torch.equal(before, torch.get_rng_state())
    draws()
    saved = own.saved()
    with own.inside():
        rest = [draws() for _ in range(3)]
    assert [first, *rest] == alone
    own.restore(*saved)
    with own.inside():
        assert draws() == alone[1]


def test_whoever_waits_for_a_turn_gets_it():
    turns, order = Turns(), []
    turns.acquire()
    turns.acquire()

    def ask(name):
        with turns:
            order.append(name)

    threads = []
    for name in "abc":
        threads.append(threading.Thread(target=ask, args=(name,)))
        threads[-1].start()
        while len(turns._waiting) < len(threads):
            threading.Event().wait(0.001)
    assert turns.wanted
    turns.release()
    assert order == []
    turns.release()
    # Taken again at once, and yet after those who waited.
    with turns:
        assert order == ["a", "b", "c"]
    for thread in threads:
        thread.join()
    assert not turns.wanted


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
def test_nobody_waits_for_one_who_was_interrupted():
    turns, held, free = Turns(), threading.Event(), threading.Event()

    def hold():
        with turns:
            held.set()
            while not turns.wanted:
                threading.Event().wait(0.001)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            free.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    with pytest.raises(KeyboardInterrupt):
        turns.acquire()
    free.set()
    thread.join()
    with turns:
        assert not turns.wanted


def dropping(tokens, lr=1e-2):
    return Recipe(TinyLM, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11,
                  "dropout": 0.1}, dataset=tokens, batch_size=4, tokens_per_sample=8,
                  optimizer={"lr": lr}, warmup_steps=5, eval_tokens=512)  # fmt: skip


@pytest.mark.parametrize("paused", [False, True])
def test_a_recipe_is_made_and_planned_while_runs_with_dropout_train(tokens, tmp_path, paused):
    recipe = dropping(tokens)
    plan = tiny_plan(recipe, [1e9], max_epochs=1e9)
    sweep = Sweep(recipe, plan, store=tmp_path / "runs.db", executor="threads")
    trains = threading.Event()
    sweep.events.connect(lambda e: trains.set() if isinstance(e, StepLogged) else None)
    sweep.start()
    assert trains.wait(60)
    if paused:
        sweep.pause()
    other = dropping(tokens, lr=2e-2)
    assert other.recipe_id != recipe.recipe_id
    assert len(tiny_plan(other, [1e9], max_epochs=1e9).runs) == len(plan.runs)
    assert sweep.state == ("paused" if paused else "running")
    assert sweep.status().n_done == 0
    sweep.cancel()
    assert sweep.wait(60)
    assert not GLOBAL_GENERATOR.wanted
