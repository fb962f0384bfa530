from functools import partial

import numpy as np
import pytest
from torch import nn

import scaling_nb as snb
from scaling_nb.checks import LrCheck, RateCell
from scaling_nb.models import GPT, gpt_optimizer


def gpt_recipe(tokens, **changed):
    options = {
        "sizes": [8, 16, 32, 64],
        "model_kwargs": {"vocab_size": 11, "context": 16},
        "dataset": tokens,
        "batch_size": 8,
        "optimizer": partial(gpt_optimizer, lr=5e-3, base_width=16),
        "warmup_steps": 5,
        "eval_tokens": 1024,
    }
    return snb.Recipe(GPT, size="d_model", **(options | changed))


def test_mup_moves_every_layer_alike_at_every_width(tokens):
    check = snb.coordinate_check(gpt_recipe(tokens))
    assert check.passed, str(check)
    assert check.sizes == (8, 16, 32, 64)
    assert {"token_embedding", "blocks.0.qkv", "head"} <= set(check.layers)
    assert check.change.shape == (len(check.layers), 4, 4)
    assert "passed" in str(check)


def standard(width, vocab_size):
    return nn.Sequential(
        nn.Embedding(vocab_size, width),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, vocab_size),
    )


def test_standard_parametrization_fails_in_its_hidden_and_output_layers(tokens):
    recipe = snb.Recipe(
        standard,
        size="width",
        sizes=[16, 64, 256],
        model_kwargs={"vocab_size": 11},
        dataset=tokens,
        tokens_per_sample=8,
        optimizer={"lr": 1e-3},
    )
    check = snb.coordinate_check(recipe)
    assert not check.passed
    assert check.slopes["5"] > 0.4
    assert "MuP" in str(check)
    figure = check.plot()
    assert len(figure.data) == len(check.layers)
    assert np.array_equal(figure.data[0].x, check.sizes)


def test_one_size_is_too_few(tiny_recipe):
    with pytest.raises(snb.RecipeError, match="two sizes"):
        snb.coordinate_check(tiny_recipe, sizes=[4])


@pytest.mark.parametrize(("lr", "best"), [(5e-3, None), (1e-4, 2.0)])
def test_a_rate_far_off_is_found_at_the_corners(tokens, lr, best):
    recipe = gpt_recipe(
        tokens, sizes=[8, 16], optimizer=partial(gpt_optimizer, lr=lr, base_width=16)
    )
    check = snb.lr_check(recipe, max_steps=80)
    assert [cell.size for cell in check.cells] == [8, 16]
    if best:
        assert not check.passed
        assert {cell.best_factor for cell in check.cells} == {best}
        assert "mistuned" in str(check)
    assert len(check.plot().data) == 2


def test_the_corners_of_a_plan(tiny_recipe):
    from helpers import tiny_plan

    plan = tiny_plan(tiny_recipe)
    check = snb.lr_check(tiny_recipe, plan, max_steps=30)
    sizes = {run.size for run in plan.runs if run.budget in (plan.budgets[0], plan.budgets[-1])}
    assert {cell.size for cell in check.cells} == {min(sizes), max(sizes)}
    for cell in check.cells:
        assert cell.n_tokens <= 30 * tiny_recipe.tokens_per_step
        assert np.isfinite(cell.losses).all()


def test_what_a_cell_says():
    cell = RateCell(size=8, n_tokens=100, factors=(0.5, 1.0, 2.0), losses=(2.0, 1.9, 1.85))
    assert (cell.best_factor, cell.gain) == (2.0, pytest.approx(0.05))
    tuned = RateCell(size=9, n_tokens=100, factors=(0.5, 1.0, 2.0), losses=(2.0, 1.9, 1.895))
    check = LrCheck(size_name="d", cells=(cell, tuned))
    assert check.mistuned == (cell,)
    assert "d=8, 100 tokens: 2 × the rate is better by 0.050" in str(check)
    assert "d=9, 100 tokens: tuned" in str(check)
