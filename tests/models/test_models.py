"""Every ready-made model: contract, counts, options, and that it learns at every size."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import scaling_nb as snb
from scaling_nb.flops import CONVENTIONS
from scaling_nb.models import GPT, MLP, ViT, gpt_optimizer, mlp_optimizer, vit_optimizer
from scaling_nb.training.counting import count_params

GPT_OPTIONS = [
    {},
    {"positions": "learned"},
    {"norm": "rms", "activation": "swiglu"},
    {"n_layers": 3, "n_heads": 1},
]


def models():
    yield from (GPT(16, vocab_size=11, context=8, **options) for options in GPT_OPTIONS)
    yield ViT(12, image_size=8, patch=4, n_classes=5)
    yield ViT(12, image_size=8, patch=2, channels=3, n_layers=1)
    yield MLP(8, n_in=3)
    yield MLP(8, n_in=3, n_out=4, n_layers=3)


@pytest.mark.parametrize("model", list(models()), ids=lambda m: type(m).__name__)
def test_counts_agree_with_the_general_count(model):
    counted = count_params(model)
    for convention in CONVENTIONS:
        assert model.num_params(convention) == counted.get(convention)
    assert model.num_params() == sum(p.numel() for p in model.parameters())
    with pytest.raises(snb.PlanError, match="unknown"):
        model.num_params("half")


def loss_of(model, batch):
    inputs, targets = batch
    outputs = model(inputs)
    if targets.is_floating_point():
        return F.mse_loss(outputs, targets)
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def batch_for(model):
    generator = torch.Generator().manual_seed(0)
    if isinstance(model, GPT):
        ids = torch.randint(11, (16, 9), generator=generator)
        return ids[:, :-1], ids[:, 1:]
    if isinstance(model, ViT):
        channels = model.patch_embedding.in_features // model.patch**2
        images = torch.randn(16, channels, 8, 8, generator=generator)
        return images, torch.randint(model.head.out_features, (16,), generator=generator)
    x = torch.randn(16, 3, generator=generator)
    if model.last.out_features == 1:
        return x, x.square().sum(1, keepdim=True)
    return x, (x.sum(1) > 0).long()


@pytest.mark.parametrize("model", list(models()), ids=lambda m: type(m).__name__)
def test_it_starts_at_the_uniform_guess_and_learns_one_batch_by_heart(model):
    torch.manual_seed(0)
    batch = batch_for(model)
    choose = {GPT: gpt_optimizer, ViT: vit_optimizer, MLP: mlp_optimizer}[type(model)]
    optimizer = choose(model, lr=1e-2)
    first = loss_of(model, batch).item()
    if not batch[1].is_floating_point():
        classes = model(batch[0]).shape[-1]
        assert first == pytest.approx(math.log(classes), abs=1e-5)
    for _ in range(150):
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(p.requires_grad for p in model.parameters())
    assert loss.item() < 0.5 * first


@pytest.mark.parametrize("options", GPT_OPTIONS[:3])
def test_no_token_sees_a_later_one(options):
    torch.manual_seed(0)
    model = GPT(16, vocab_size=11, context=8, **options)
    torch.nn.init.normal_(model.head.weight)
    tokens = torch.randint(11, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 11
    before, after = model(tokens), model(changed)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-5)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


def test_positions_matter_and_rotary_ones_are_relative():
    torch.manual_seed(0)
    model = GPT(16, vocab_size=11, context=16)
    torch.nn.init.normal_(model.head.weight)
    a = model(torch.tensor([[1, 2, 3]]))[0, -1]
    b = model(torch.tensor([[2, 1, 3]]))[0, -1]
    assert not torch.allclose(a, b, atol=1e-4)
    from scaling_nb.models.blocks import rotary_table, rotate

    one = torch.randn(1, 1, 3 * 2 * 8)
    turned = rotate(one.expand(1, 16, -1), *rotary_table(16, 2, 8, 100.0), n_heads=6)
    q, k, v = turned.view(16, 3, 2, 8).permute(1, 2, 0, 3)
    assert torch.equal(v, one.view(3, 2, 1, 8)[2].expand_as(v)), "values are not turned"
    scores = (q @ k.transpose(1, 2))[1]
    for offset in range(-5, 6):
        diagonal = scores.diagonal(offset)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-4)


def test_patches_hold_the_pixels_they_should():
    model = ViT(4, image_size=4, patch=2, n_heads=1)
    seen = []
    model.patch_embedding.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    model(torch.arange(16.0).reshape(1, 1, 4, 4))
    expected = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert seen[0][0].tolist() == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GPT(6, vocab_size=3), "multiple of 4"),
        (lambda: ViT(5), "multiple of 2"),
        (lambda: ViT(4, patch=5), "do not tile"),
        (lambda: MLP(0, n_in=1), "at least 1"),
    ],
)
def test_impossible_sizes_say_why(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_image_and_tabular_recipes_train_by_their_own_units():
    images = snb.datasets.digits()
    vision = snb.Recipe(
        ViT,
        size="d_model",
        sizes=[4, 8],
        model_kwargs={"image_size": 8, "patch": 4},
        dataset=images.train,
        eval_dataset=images.held_out,
        tokens_per_sample=4,
        optimizer=partial(vit_optimizer, lr=1e-2),
    )
    assert vision.unique_tokens == images.unique_tokens(patch=4) == 4 * 1438
    assert vision.probed.loss == pytest.approx(math.log(10), abs=1e-5)
    data = snb.datasets.teacher(2000)
    tabular = snb.Recipe(
        MLP,
        size="width",
        model_kwargs={"n_in": data.n_in},
        dataset=data.train,
        eval_dataset=data.held_out,
        loss_fn=F.mse_loss,
        optimizer=mlp_optimizer,
    )
    assert tabular.unique_tokens == 1900
    assert np.isfinite(tabular.inspect_size(8).flops_per_token)


@pytest.mark.parametrize("wrong", [{"norm": "rsm"}, {"activation": "relu"}, {"positions": "rope"}])
def test_a_misspelt_choice_of_the_gpt_is_told(wrong):
    with pytest.raises(ValueError, match=r"is unknown\. Give '"):
        GPT(16, vocab_size=11, **wrong)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_sequence_beyond_the_context_is_told(positions):
    model = GPT(16, vocab_size=11, context=8, positions=positions)
    assert model(torch.zeros(2, 8, dtype=torch.long)).shape == (2, 8, 11)
    with pytest.raises(ValueError, match="9 tokens is longer than the context of 8"):
        model(torch.zeros(2, 9, dtype=torch.long))
