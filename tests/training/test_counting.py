from __future__ import annotations

import pytest
import torch
from helpers import Regressor
from torch import nn
from torch.utils.data import TensorDataset

from scaling_nb import Recipe, RecipeError, ScalingWarning, quickstart_recipe
from scaling_nb.flops import transformer_flops_per_token
from scaling_nb.models import GPT
from scaling_nb.training.counting import count_params

PAIRS = TensorDataset(torch.randn(200, 4), torch.randn(200, 1))


@pytest.mark.parametrize("width", [8, 24, 64])
def test_counted_flops_agree_with_the_closed_form(width):
    size = quickstart_recipe().inspect_size(width)
    assert size.flops_per_token == transformer_flops_per_token(
        matmul_params=size.counts.matmul, n_layers=2, context=64, width=width
    )


def test_attention_is_counted():
    assert quickstart_recipe().inspect_size(8).flops_per_token == 26_160


def test_every_convention_is_counted():
    counts = count_params(GPT(16, vocab_size=97, context=64))
    assert counts.matmul == 2 * 12 * 16**2 + 97 * 16
    assert counts.total - counts.non_embedding == 97 * 16
    assert counts.total == GPT(16, vocab_size=97).num_params()


def test_tied_weights_are_counted_once():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    counts = count_params(model)
    assert counts.total == 40
    assert counts.matmul == 40


def recipe(build=Regressor, **options) -> Recipe:
    return Recipe(build, size="width", sizes=[4], dataset=PAIRS, loss_fn=nn.MSELoss(), **options)


def test_six_nd_is_a_choice():
    size = recipe(flops="6ND").inspect_size(4)
    assert size.flops_per_token == 6 * size.counts.total


def test_the_users_own_count_is_a_choice():
    assert recipe(flops=lambda model, batch: 77.0).inspect_size(4).flops_per_token == 77.0
    with pytest.raises(RecipeError, match="returned -1.0. Return FLOP per token"):
        recipe(flops=lambda model, batch: -1).inspect_size(4)


class ReadsItsData(Regressor):
    """Cannot run on meta tensors: it looks at a value."""

    def forward(self, x):
        return super().forward(x) * (1.0 if float(x.sum()) > 0 else 0.5)


class BuildsFromNumpy(Regressor):
    """Cannot be built on meta tensors."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.scale = nn.Parameter(torch.tensor(self.layers[0].weight.detach().numpy().mean()))


@pytest.mark.parametrize("build", [ReadsItsData, BuildsFromNumpy])
def test_what_cannot_run_on_meta_falls_back_to_six_n_and_says_so(build):
    with pytest.warns(ScalingWarning, match=r"cannot be counted .* so 6·N per token is used"):
        size = recipe(build).inspect_size(4)
    assert size.flops_per_token == 6 * size.counts.total


def test_what_cannot_be_counted_is_said_once_for_all_sizes():
    made = recipe(ReadsItsData)
    with pytest.warns(ScalingWarning, match="cannot be counted") as told:
        [made.inspect_size(width) for width in (4, 8, 16)]
    assert len(told) == 1
