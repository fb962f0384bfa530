from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import TinyLM

from scaling_nb import Recipe
from scaling_nb.training.outcomes import Diverged
from scaling_nb.training.trainer import Trainer


def collect(trainer, until, n_steps):
    losses = []
    trainer.train(until, n_steps, report=lambda piece: losses.extend(piece.loss.tolist()))
    return losses


def test_the_same_seed_trains_the_same(tiny_recipe):
    runs = [Trainer(tiny_recipe, 8, seed=1, lr=1e-2) for _ in range(2)]
    losses = [collect(run, 30, 30) for run in runs]
    assert losses[0] == losses[1]
    assert runs[0].evaluate() == runs[1].evaluate()
    assert collect(Trainer(tiny_recipe, 8, seed=2, lr=1e-2), 30, 30) != losses[0]


def test_training_lowers_the_held_out_loss(tiny_recipe):
    trainer = Trainer(tiny_recipe, 16, seed=0, lr=1e-2)
    before = trainer.evaluate()
    collect(trainer, 400, 400)
    # The chain's conditional entropy is that of (.6, .2, .2): 0.950 nats.
    assert before > 2.2
    assert 0.94 < trainer.evaluate() < 1.1


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_going_back_to_a_snapshot_is_exact(tokens, dropout):
    recipe = Recipe(TinyLM, size="width", sizes=[8], model_kwargs={"vocab_size": 11,
                    "dropout": dropout}, dataset=tokens, batch_size=4, tokens_per_sample=8,
                    optimizer={"lr": 1e-2})  # fmt: skip
    torch.manual_seed(0)
    trainer = Trainer(recipe, 8, seed=0, lr=1e-2)
    collect(trainer, 10, 50)
    snapshot = trainer.snapshot()
    first = collect(trainer, 40, 50)
    trainer.restore(snapshot)
    assert collect(trainer, 40, 50) == first


def test_gradients_are_clipped_only_where_asked(tokens):
    def recipe(clip):
        return Recipe(TinyLM, size="width", sizes=[4], model_kwargs={"vocab_size": 11},
                      dataset=tokens, batch_size=4, tokens_per_sample=8, grad_clip=clip,
                      optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=1.0),
                      schedule="constant", warmup_steps=0)  # fmt: skip

    moved = []
    for clip in (1e-3, None):
        trainer = Trainer(recipe(clip), 4, seed=0, lr=None)
        before = torch.cat([p.detach().flatten() for p in trainer.parameters])
        collect(trainer, 1, 10)
        after = torch.cat([p.detach().flatten() for p in trainer.parameters])
        moved.append(float((after - before).norm()))
    assert moved[0] == pytest.approx(1e-3, rel=1e-2)
    assert moved[1] > 0.05


def test_nan_ends_the_run_with_the_step_and_the_remedy(tokens):
    calls = []

    def step(model, batch):
        calls.append(1)
        loss = torch.nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())
        return loss * float("nan") if len(calls) > 8 else loss

    recipe = Recipe(TinyLM, size="width", sizes=[4], model_kwargs={"vocab_size": 11},
                    dataset=tokens, batch_size=4, tokens_per_sample=8, step_fn=step,
                    optimizer={"lr": 1e-2})  # fmt: skip
    calls.clear()
    kept = []
    trainer = Trainer(recipe, 4, seed=0, lr=1e-2)
    with pytest.raises(Diverged, match="became nan at step 9. Try half the learning rate"):
        trainer.train(50, 50, report=lambda piece: kept.extend(piece.loss))
    assert len(kept) == 8
    assert np.isfinite(kept).all()


def test_the_default_optimizer_spares_vectors_and_embeddings_from_decay(tiny_recipe):
    trainer = Trainer(tiny_recipe, 8, seed=0, lr=1e-2)
    decay = {g["weight_decay"]: len(g["params"]) for g in trainer.optimizer.param_groups}
    assert decay == {0.1: 2, 0.0: 3}
    assert all(g["fused"] and g["betas"] == (0.9, 0.95) for g in trainer.optimizer.param_groups)
