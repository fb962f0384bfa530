import numpy as np
import pytest
import torch
from torch import nn

from scaling_nb.datasets import synthetic, teacher
from scaling_nb.errors import DataError


def test_the_entropy_of_a_chain_by_hand():
    data = synthetic(1000, vocab_size=2, seed=3)
    (a, b), (c, d) = data.transitions
    pi = np.array([c, b]) / (b + c)
    rows = [-(a * np.log(a) + b * np.log(b)), -(c * np.log(c) + d * np.log(d))]
    assert data.entropy == pytest.approx(pi @ rows, rel=1e-10)


@pytest.mark.parametrize(("vocab_size", "order"), [(16, 1), (5, 2), (2, 4)])
def test_the_tokens_follow_the_chain(vocab_size, order):
    data = synthetic(400_000, vocab_size=vocab_size, order=order, seed=1)
    ids = np.concatenate([data.train, data.held_out]).astype(int)
    assert len(ids) == 400_000
    seen = np.zeros(data.transitions.shape)
    past = tuple(ids[k : len(ids) - order + k] for k in range(order + 1))
    np.add.at(seen, past, 1)
    visits = seen.sum(-1, keepdims=True)
    p = data.transitions
    z = (seen - visits * p) / np.sqrt(np.maximum(visits * p * (1 - p), 1))
    assert np.abs(z).max() < 5.5
    freedom = vocab_size**order * (vocab_size - 1)
    assert np.sum(z**2 * (1 - p)) < freedom + 5 * np.sqrt(2 * freedom)


def test_no_predictor_is_better_than_the_entropy():
    data = synthetic(500_000, vocab_size=8, seed=2)
    assert data.held_out_floor == pytest.approx(data.entropy, abs=0.03)
    # The bigram frequencies of the training part are the best estimate there is: just above it.
    counts = np.ones((8, 8))
    np.add.at(counts, (data.train[:-1], data.train[1:]), 1)
    bigram = -np.log(counts / counts.sum(1, keepdims=True))
    loss = bigram[data.held_out[:-1], data.held_out[1:]].mean()
    assert loss == pytest.approx(data.held_out_floor, abs=0.001)


def test_equal_seeds_equal_tokens():
    assert synthetic(5000, seed=1).content_hash == synthetic(5000, seed=1).content_hash
    assert synthetic(5000, seed=1).content_hash != synthetic(5000, seed=2).content_hash


def test_a_chain_that_cannot_be_is_refused():
    with pytest.raises(DataError, match="states"):
        synthetic(1000, vocab_size=100, order=2)
    with pytest.raises(DataError, match="leaves nothing"):
        synthetic(1)


def test_a_trained_model_reaches_the_entropy():
    import scaling_nb as snb

    data = synthetic(300_000, vocab_size=8, seed=0)
    recipe = snb.Recipe(
        lambda width: nn.Sequential(nn.Embedding(8, width), nn.Linear(width, 8)),
        size="width",
        dataset=data.train,
        eval_dataset=data.held_out,
        tokens_per_sample=64,
        optimizer={"lr": 3e-2, "weight_decay": 0.0},
    )
    from scaling_nb.training.trainer import Trainer

    trainer = Trainer(recipe, 16, seed=0, lr=3e-2)
    trainer.train(400, 400, report=lambda piece: None)
    assert trainer.evaluate() - data.held_out_floor == pytest.approx(0.0, abs=0.01)


def test_the_teachers_noise_is_the_floor():
    data = teacher(40_000, n_in=3, width=4, noise=0.3, seed=1)
    x, y = data.train.tensors
    assert data.irreducible_loss == pytest.approx(0.09)
    assert len(data.train) == data.unique_samples == 38_000
    assert (x.shape, y.shape, x.dtype) == ((38_000, 3), (38_000, 1), torch.float32)
    assert float(y.var()) == pytest.approx(1.09, abs=0.03)
    quiet = teacher(40_000, n_in=3, width=4, noise=0.0, seed=1).train.tensors[1]
    assert float(((y - quiet) ** 2).mean()) == pytest.approx(0.09, abs=0.003)


def test_a_teacher_of_nothing_is_refused():
    with pytest.raises(DataError, match="n_samples"):
        teacher(3)
