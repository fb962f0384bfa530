"""Products in bfloat16: faster where the device has it, everything else as it was."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import TinyLM, tiny_plan

from scaling_nb import Recipe, RecipeError, Sweep
from scaling_nb.training.precision import multiplying_in
from scaling_nb.training.trainer import Trainer


def losses(recipe: Recipe, n: int) -> list[float]:
    found: list[float] = []
    trainer = Trainer(recipe, 16, seed=1, lr=None)
    trainer.train(n, n, report=lambda piece: found.extend(piece.loss.tolist()))
    return found


def test_it_trains_nearly_as_in_float32_and_keeps_weights_in_it(tiny_recipe):
    half = dataclasses.replace(tiny_recipe, precision="bf16")
    found, expected = losses(half, 30), losses(tiny_recipe, 30)
    assert found != expected
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert found[-1] < found[0]
    trainer = Trainer(half, 16, seed=1, lr=None)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert half.loss(trainer.model, half.sample_batch()).dtype == torch.float32


def test_it_is_another_recipe_and_the_default_is_the_one_there_was(tiny_recipe):
    half = dataclasses.replace(tiny_recipe, precision="bf16")
    assert half.recipe_id != tiny_recipe.recipe_id
    assert "precision" not in tiny_recipe.parts()
    assert half.inspect_size(16) == tiny_recipe.inspect_size(16)


def recipe_of(tokens, **options) -> Recipe:
    return Recipe(TinyLM, size="width", sizes=[2, 4], model_kwargs={"vocab_size": 11},
                  dataset=tokens, batch_size=4, tokens_per_sample=8, flops="6ND",
                  precision="bf16", device="cpu", **options)  # fmt: skip


def test_a_step_function_multiplies_in_it_too(tokens):
    seen = set()

    def step(model, batch):
        outputs = model(batch[0])
        seen.add(outputs.dtype)
        return torch.nn.functional.cross_entropy(outputs.flatten(0, 1), batch[1].flatten())

    Trainer(recipe_of(tokens, step_fn=step), 2, seed=0, lr=None).evaluate()
    assert seen == {torch.bfloat16}


def test_no_loss_is_rounded_to_it(tokens):
    """A loss near 1 has steps of 2⁻⁷ in bfloat16: as large as what scaling laws are fitted to."""

    def near_one(outputs, targets):
        return 1.0 + 1e-4 * outputs.pow(2).mean()

    recipe = recipe_of(tokens, loss_fn=near_one)
    model = Trainer(recipe, 4, seed=0, lr=None).model
    loss = recipe.loss(model, recipe.sample_batch())
    assert loss.dtype == torch.float32
    assert 0.0 < loss.item() - 1.0 < 2**-8


def test_a_step_function_that_rounds_its_loss_is_refused(tokens):
    with pytest.raises(RecipeError, match=r"a loss in bfloat16.*outputs\.float\(\)"):
        recipe_of(tokens, step_fn=lambda model, batch: model(batch[0]).pow(2).mean())


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_sweep_has_it_in_every_worker(tiny_recipe, tmp_path, executor):
    half = dataclasses.replace(tiny_recipe, precision="bf16", sizes=[8, 16])
    expected = [losses_of(half, tmp_path / f"{name}.db", name) for name in ("threads", executor)]
    assert expected[0] == expected[1]


def losses_of(recipe: Recipe, path, executor: str) -> dict[str, float]:
    sweep = Sweep(recipe, tiny_plan(recipe), store=path, executor=executor).start()
    assert sweep.wait(120)
    return {run.run_id: run.loss for run in sweep.runs}


def test_where_only_shapes_are_computed_nothing_is_cast():
    with torch.device("meta"):
        model = torch.nn.Linear(2, 2)
    with multiplying_in("bf16", model):
        assert model(torch.ones(1, 2, device="meta")).dtype == torch.float32
