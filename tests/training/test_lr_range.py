from __future__ import annotations

import math

import pytest
from helpers import TinyLM

from scaling_nb import Recipe, RecipeError
from scaling_nb.training.lr_range import RangeTest, interpolate_rates, range_test
from scaling_nb.training.trainer import Trainer


def auto(tokens, **options):
    settings = {"sizes": [2, 4, 8], "model_kwargs": {"vocab_size": 11}, "batch_size": 4,
                "tokens_per_sample": 8, **options}  # fmt: skip
    return Recipe(TinyLM, size="width", dataset=tokens, **settings)


def test_the_best_rate_has_a_worse_one_on_either_side(tokens):
    test = range_test(auto(tokens), 8, 100, steps=60)
    i = test.losses.index(min(test.losses))
    assert 0 < i < len(test.losses) - 1
    assert test.rates[i - 1] < test.best < test.rates[i + 1]
    assert test == range_test(auto(tokens), 8, 100, steps=60)


def test_a_recipe_without_a_rate_tests_its_smallest_and_largest_size(tokens):
    recipe = auto(tokens)
    rates = recipe.learning_rates([2, 4, 8])
    assert sorted(recipe.range_tests) == [2, 8]
    assert rates[2] == pytest.approx(recipe.range_tests[2].best, rel=0.05)
    assert rates[8] == pytest.approx(recipe.range_tests[8].best, rel=0.05)
    assert min(rates[2], rates[8]) <= rates[4] <= max(rates[2], rates[8])


def test_between_the_ends_the_rate_is_a_power_of_n():
    ends = [
        RangeTest(size=1, n_params=100, rates=(), losses=(), best=1e-2),
        RangeTest(size=2, n_params=10_000, rates=(), losses=(), best=1e-3),
    ]
    assert interpolate_rates(ends, [100, 1000, 10_000]) == [0.01, 0.0032, 0.001]


def test_a_rate_may_be_a_function_of_n(tokens):
    recipe = auto(tokens, optimizer={"lr": lambda n: 1 / n})
    n = recipe.inspect_size(4).counts.total
    assert recipe.learning_rates([4]) == {4: 1 / n}
    with pytest.raises(RecipeError, match="returned -1.0. Return a positive rate"):
        auto(tokens, optimizer={"lr": lambda n: -1}).learning_rates([4])


def test_rates_that_all_diverge_are_an_error(tokens, monkeypatch):
    import scaling_nb.training.lr_range as module

    monkeypatch.setattr(module, "_final_loss", lambda *args: math.inf)
    with pytest.raises(RecipeError, match="diverged at every learning rate"):
        range_test(auto(tokens), 4, 100)


def test_the_rate_reaches_the_optimizer(tokens):
    trainer = Trainer(auto(tokens), 4, seed=0, lr=0.0123)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {0.0123}
