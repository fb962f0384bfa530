"""Every way a recipe can be wrong, reported before anything is launched."""

from __future__ import annotations

import functools
import pickle

import numpy as np
import pytest
import torch
from helpers import Regressor, TinyLM
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from scaling_nb import DataError, Recipe, RecipeError, ScalingWarning


@pytest.fixture
def pairs() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 4, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True))


def regression(pairs, build=Regressor, **options) -> Recipe:
    settings = {"sizes": [2, 4], "loss_fn": nn.MSELoss(), "optimizer": {"lr": 1e-2}, **options}
    return Recipe(build, size="width", dataset=pairs, **settings)


def lm(tokens, **options) -> Recipe:
    settings = {"sizes": [2, 4], "model_kwargs": {"vocab_size": 11}, "batch_size": 4,
                "tokens_per_sample": 8, "optimizer": {"lr": 1e-2}, **options}  # fmt: skip
    return Recipe(TinyLM, size="width", dataset=tokens, **settings)


def lambda_model(width):
    return Regressor(width)


@pytest.mark.parametrize(
    "build",
    [
        Regressor,
        lambda_model,
        lambda width: Regressor(width),
        functools.partial(Regressor, n_in=4),
    ],
    ids=["class", "function", "lambda", "partial"],
)
def test_anything_that_returns_a_module_is_a_model(pairs, build):
    recipe = regression(pairs, build)
    assert recipe.inspect_size(4).counts.total == 4 * 4 + 4 + 4 + 1


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.functional.mse_loss, torch.dist])
def test_losses_may_be_modules_functions_or_unreadable_builtins(pairs, loss):
    assert regression(pairs, loss_fn=loss).probed.loss > 0


class Counted(Regressor):
    def __init__(self, width: int, claim: object = 123) -> None:
        super().__init__(width)
        self.claim = claim

    def num_params(self) -> object:
        return self.claim


def test_num_params_decides_the_total(pairs):
    recipe = regression(pairs, Counted)
    assert recipe.inspect_size(2).counts.total == 123


def test_num_params_that_fails_is_reported_with_its_cause(pairs):
    class Wrong(Regressor):
        def num_params(self):
            return self.missing

    with pytest.raises(RecipeError, match=r"num_params\(\) failed: AttributeError: .*missing"):
        regression(pairs, Wrong)


@pytest.mark.parametrize("claim", [0, -3, 1.5, "many", None, True])
def test_num_params_must_be_a_positive_int(pairs, claim):
    with pytest.raises(RecipeError, match=r"num_params\(\) returned .* positive int"):
        regression(pairs, Counted, model_kwargs={"claim": claim})


def no_parameters(width):
    return nn.Identity()


def frozen(width):
    return Regressor(width).requires_grad_(False)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Regressor(4), "is built already. Give the class"),
        ("Regressor", "build_model is a str"),
        (no_parameters, "has no trainable parameters"),
        (frozen, "has no trainable parameters"),
        (lambda width: "model", "returned a str, not an nn.Module"),
    ],
)
def test_what_is_no_model_is_refused(pairs, build, message):
    with pytest.raises(RecipeError, match=message):
        regression(pairs, build)


def test_an_unknown_size_argument_is_named(pairs):
    with pytest.raises(RecipeError, match=r"no argument 'depth' \(named in size=\).*width, n_in"):
        Recipe(Regressor, size="depth", dataset=pairs, loss_fn=nn.MSELoss())


def test_an_unknown_model_argument_is_named(pairs):
    with pytest.raises(RecipeError, match=r"no argument 'layers' \(named in model_kwargs\)"):
        regression(pairs, model_kwargs={"layers": 3})


def test_a_missing_model_argument_is_named(tokens):
    with pytest.raises(RecipeError, match=r"needs 'vocab_size' as well"):
        lm(tokens, model_kwargs={})


def test_an_unknown_argument_behind_kwargs_is_reported_with_its_cause(pairs):
    def build(width, **kwargs):
        return Regressor(width, **kwargs)

    with pytest.raises(RecipeError, match="unexpected keyword argument 'layers'"):
        regression(pairs, build, model_kwargs={"layers": 3})


def test_a_size_in_model_kwargs_warns_and_the_size_wins(pairs):
    with pytest.warns(ScalingWarning, match="model_kwargs names 'width' too"):
        recipe = regression(pairs, model_kwargs={"width": 999})
    assert recipe.inspect_size(2).counts.total == 2 * 4 + 2 + 2 + 1


def test_a_loss_class_is_recognised(pairs):
    with pytest.raises(RecipeError, match=r"did you mean CrossEntropyLoss\(\)\?"):
        regression(pairs, loss_fn=nn.CrossEntropyLoss)


def test_a_loss_with_the_wrong_signature_is_reported(pairs):
    with pytest.raises(RecipeError, match=r"cannot be called as loss_fn\(outputs, targets\)"):
        regression(pairs, loss_fn=lambda outputs: outputs.mean())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.MSELoss(reduction="none"), "not one number. Reduce it"),
        (lambda o, t: 1.0, "returned a float. Return the loss as a tensor"),
        (lambda o, t: (o.detach() - t).square().mean(), "loss without gradient"),
        (lambda o, t: (o - t).mean() * float("nan"), "loss is nan"),
    ],
)
def test_a_wrong_loss_value_is_reported(pairs, loss, message):
    with pytest.raises(RecipeError, match=message):
        regression(pairs, loss_fn=loss)


def test_a_shape_that_does_not_fit_the_model_names_both(pairs):
    with pytest.raises(RecipeError, match=r"Regressor failed on a batch of inputs Tensor\(32, 4\)"):
        regression(pairs, model_kwargs={"n_in": 7})


def test_targets_of_the_wrong_dtype_name_both(pairs):
    with pytest.raises(RecipeError, match=r"targets Tensor\(32, 1\) float32.*int64"):
        regression(pairs, loss_fn=nn.NLLLoss())


class DictData(Dataset):
    def __len__(self):
        return 200

    def __getitem__(self, i):
        x = torch.full((4,), i / 200)
        return {"x": x, "y": x.sum(0, keepdim=True)}


class OwnLoss(Regressor):
    def forward(self, x, y=None):
        out = super().forward(x)
        return {"loss": nn.functional.mse_loss(out, y)}


def test_dict_batches_ask_for_a_step_function():
    with pytest.raises(RecipeError, match=r"dict with keys 'x', 'y'.*Give step_fn="):
        regression(DictData())


def test_a_step_function_replaces_the_loss():
    recipe = regression(
        DictData(), OwnLoss, loss_fn=None, step_fn=lambda model, batch: model(**batch)["loss"]
    )
    assert recipe.data.tokens_per_sample == 1
    assert recipe.probed.loss > 0


def test_a_model_that_returns_no_tensor_asks_for_a_step_function(tokens):
    class Wrapped(TinyLM):
        def forward(self, tokens):
            return {"logits": super().forward(tokens)}

    with pytest.raises(RecipeError, match=r"returns a dict.*loss\(model\(batch\[0\]\)\['logits'\]"):
        Recipe(Wrapped, size="width", sizes=[2], model_kwargs={"vocab_size": 11}, dataset=tokens)


def test_cross_entropy_takes_sequences_as_they_are(tokens):
    assert lm(tokens, loss_fn=nn.CrossEntropyLoss()).probed.loss == pytest.approx(
        lm(tokens, loss_fn=None).probed.loss
    )


@pytest.mark.parametrize("name", ["batch_size", "eval_tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_counts_must_be_positive(tokens, name, value):
    with pytest.raises(RecipeError, match=f"{name} is .* positive whole number"):
        lm(tokens, **{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": []}, "sizes is empty"),
        ({"flops": "7ND"}, 'Choose "counted", "6ND"'),
        ({"schedule": "linear"}, "schedule 'linear' is unknown"),
        ({"optimizer": {"learning_rate": 1}}, "unknown settings learning_rate"),
        ({"optimizer": {"lr": -1.0}}, "lr is -1.0"),
        ({"optimizer": {"lr": "fast"}}, "lr is 'fast'"),
        ({"optimizer": torch.optim.SGD}, "made for each model anew"),
        ({"optimizer": 3}, "optimizer is a int"),
        ({"device": "tpu9"}, "device 'tpu9' is unknown"),
    ],
)
def test_bad_settings_say_what_would_be_right(tokens, options, message):
    with pytest.raises(RecipeError, match=message):
        lm(tokens, **options)


def test_a_size_that_is_a_value_is_refused(tokens):
    with pytest.raises(RecipeError, match="Give the \\*name\\* of the argument"):
        Recipe(TinyLM, size=64, dataset=tokens)


class Stream(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        for i in range(self.n):
            x = torch.tensor([i % 7, i % 5, i % 3, 1.0])
            yield x, x.sum(0, keepdim=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "dataset is missing"),
        ({"a": 1}, "dataset is a dict of 'a'. Give one"),
        (42, "dataset is a int"),
        (np.zeros((3, 3), int), r"shape \(3, 3\)"),
        (np.zeros(9), "dtype float64 is not a sequence of token ids"),
        (np.zeros(20, int), "do not fill one batch of 4 × 8"),
        (TensorDataset(torch.zeros(0, 4)), "dataset is empty"),
        (
            TensorDataset(torch.zeros(3, 4), torch.zeros(3, 1)),
            "3 samples, of which 1 is held out: 2 training samples .* fewer than one batch of 4",
        ),
        (Stream(2), "yields no batch"),
    ],
)
def test_unusable_data_is_refused(data, message):
    with pytest.raises(DataError, match=message):
        lm(data)


def test_a_huggingface_dataset_without_torch_format_is_told_how():
    class FakeHub:
        format = {"type": None}  # noqa: RUF012

        def __len__(self):
            return 10

        def __getitem__(self, i):
            return {"input_ids": [1, 2, 3]}

    FakeHub.__module__ = "datasets.arrow_dataset"
    with pytest.raises(DataError, match=r'with_format\("torch"\)'):
        lm(FakeHub())


def dict_step(model, batch):
    outputs = model(batch["input_ids"])
    return nn.functional.cross_entropy(outputs.flatten(0, 1), batch["labels"].flatten())


def test_a_huggingface_stream_without_torch_format_is_told_how():
    datasets = pytest.importorskip("datasets.arrow_dataset")  # tests/datasets is no module
    ids = [[i % 7, 2, 3, 4] for i in range(100)]
    table = datasets.Dataset.from_dict({"input_ids": ids, "labels": ids})
    stream = table.to_iterable_dataset()

    def of(data):
        return Recipe(TinyLM, size="width", sizes=[2, 4], model_kwargs={"vocab_size": 11},
                      dataset=data, step_fn=dict_step, batch_size=4, optimizer={"lr": 1e-2},
                      eval_tokens=16)  # fmt: skip

    for data, name in ((stream, "dataset"), (DataLoader(stream, batch_size=4), "dataset.dataset")):
        with pytest.raises(DataError, match=rf'Give {name}\.with_format\("torch"\)'):
            of(data)
    assert of(stream.with_format("torch")).tokens_per_step == 16
    assert of(table.with_format("torch")).tokens_per_step == 16


def doubled(samples):
    x, y = torch.utils.data.default_collate(samples)
    return 2 * x, y


def test_the_identity_sees_how_a_loader_orders_its_data(pairs):
    def of(**options):
        return regression(DataLoader(pairs, **{"batch_size": 10, "shuffle": True, **options}))

    ids = [of(), of(shuffle=False), of(batch_size=20), of(collate_fn=doubled)]
    assert len({recipe.recipe_id for recipe in ids}) == 4
    assert of().recipe_id == of().recipe_id
    x, y = pairs.tensors
    other = y.clone()
    other[50:53] += 1  # between the samples that are looked at where data is large
    assert regression(TensorDataset(x, other)).recipe_id != regression(pairs).recipe_id


def test_dropout_is_found_to_draw_from_the_global_generator(tokens):
    assert not lm(tokens).probed.draws_random
    assert lm(tokens, model_kwargs={"vocab_size": 11, "dropout": 0.1}).probed.draws_random


def test_making_a_recipe_leaves_the_users_random_state_alone(tokens):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    lm(tokens).inspect_size(4)
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])  # noqa: NPY002


def test_the_identity_changes_with_whatever_changes_the_result(tokens, pairs):
    same = lm(tokens).recipe_id
    assert lm(tokens.copy()).recipe_id == same
    assert lm(tokens[::-1].copy()).recipe_id != same
    assert lm(tokens, optimizer={"lr": 2e-2}).recipe_id != same
    assert lm(tokens, batch_size=5).recipe_id != same
    assert lm(tokens, model_kwargs={"vocab_size": 12}).recipe_id != same
    assert lm(tokens, warmup_steps=7).recipe_id != same
    assert lm(tokens, sizes=[2, 8]).recipe_id == same


def test_sizes_are_found_where_none_are_named(tokens):
    def even_only(width, vocab_size):
        if width % 2:
            raise ValueError(f"width {width} is odd")
        return TinyLM(width, vocab_size=vocab_size)

    recipe = Recipe(
        even_only, size="width", model_kwargs={"vocab_size": 11}, dataset=tokens, batch_size=4
    )
    assert recipe.smallest == 2
    with pytest.raises(RecipeError, match="width 3 is odd"):
        recipe.inspect_size(3)


def test_a_loader_is_taken_as_it_is(pairs):
    loader = DataLoader(pairs, batch_size=10, shuffle=True)
    recipe = regression(loader)
    assert recipe.tokens_per_step == 10
    assert recipe.unique_tokens == 380


def test_a_recipe_with_importable_parts_can_be_described_twice(tokens):
    assert pickle.dumps(lm(tokens).parts()) == pickle.dumps(lm(tokens).parts())


class Factory:
    def __init__(self, n_in: int) -> None:
        self.n_in = n_in

    def __call__(self, width: int) -> nn.Module:
        return Regressor(width, self.n_in)


def scaled(factor):
    return lambda o, t: factor * nn.functional.mse_loss(o, t)


def with_default(factor):
    def loss(outputs, targets, factor=factor):
        return factor * nn.functional.mse_loss(outputs, targets)

    return loss


def executed(factor):
    """A class as a notebook cell makes it: no module, no readable source."""
    names = {"nn": nn, "Regressor": Regressor, "__name__": "__main__"}
    exec(
        "class Net(Regressor):\n"
        f"    def forward(self, x):\n        return {factor} * super().forward(x)\n",
        names,
    )
    return names["Net"]


@pytest.mark.parametrize(
    "options",
    [
        lambda k: {"loss_fn": nn.HuberLoss(delta=k)},
        lambda k: {"loss_fn": scaled(k)},
        lambda k: {"loss_fn": scaled(torch.tensor(k))},
        lambda k: {"loss_fn": with_default(k)},
        lambda k: {"build": executed(k)},
        lambda k: {"build": functools.partial(lambda width, net: net(width), net=executed(k))},
        lambda k: {"optimizer": lambda m, lr=k: torch.optim.SGD(m.parameters(), lr=lr)},
    ],
    ids=["module", "closure", "tensor", "default", "notebook class", "class in lambda", "lr"],
)
def test_the_identity_sees_inside_code_and_objects(pairs, options):
    def recipe_id(k):
        given = options(k)
        return regression(pairs, given.pop("build", Regressor), **given).recipe_id

    assert recipe_id(1.0) == recipe_id(1.0)
    assert recipe_id(1.0) != recipe_id(2.0)


def test_the_identity_sees_a_callable_objects_state(pairs):
    wide = TensorDataset(torch.randn(400, 6), torch.randn(400, 1))
    assert regression(pairs, Factory(4)).recipe_id != regression(wide, Factory(6)).recipe_id


def test_the_identity_sees_targets_too(pairs):
    x, y = pairs.tensors
    other = TensorDataset(x, y + 1)
    assert regression(pairs).recipe_id != regression(other).recipe_id


class Augmented(Dataset):
    """Noise drawn anew each time, as augmentation does."""

    def __len__(self):
        return 400

    def __getitem__(self, i):
        x = torch.full((4,), i / 400)
        return x + 0.1 * torch.randn(4), x.sum(0, keepdim=True)


def test_data_that_draw_are_found_out_and_known_again():
    torch.manual_seed(1)
    first = regression(Augmented())
    torch.manual_seed(2)
    assert regression(Augmented()).recipe_id == first.recipe_id
    # Each batch is drawn under a seed of its own: the step itself draws nothing.
    assert first.data.source.draws
    assert not first.probed.draws_random


def test_a_large_model_that_draws_is_found_when_it_is_planned(pairs):
    def build(width):
        return nn.Sequential(nn.Linear(4, width), nn.Dropout(0.3 if width > 2 else 0.0),
                             nn.Linear(width, 1))  # fmt: skip

    recipe = regression(pairs, build)
    assert not recipe.probed.draws_random
    recipe.learning_rates([2, 4])
    assert recipe.probed.draws_random


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": 8}, "sizes is 8. Give a list"),
        ({"sizes": [0, 4]}, "sizes has 0 in it"),
        ({"sizes": [None]}, "sizes has None in it"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"warmup_steps": "a"}, "warmup_steps is 'a'"),
        ({"grad_clip": -1.0}, "grad_clip is -1.0"),
        ({"grad_clip": 0.0}, "grad_clip is 0.0"),
        ({"precision": "fp16"}, "fp16 would need its gradients scaled"),
        ({"tokens_per_sample": 0}, "tokens_per_sample is 0"),
        ({"model_kwargs": [1]}, "model_kwargs is a list"),
        ({"optimizer": lambda m: None}, "returned a NoneType"),
        ({"optimizer": lambda m: torch.optim.LBFGS(m.parameters())}, "needs no closure"),
        ({"optimizer": {"lr": 0.1, "betas": (2, 3)}}, "the optimizer failed: ValueError"),
        ({"eval_dataset": "validation"}, "eval_dataset is a str"),
    ],
)
def test_what_would_fail_later_is_said_at_once(pairs, options, message):
    with pytest.raises(RecipeError, match=message):
        regression(pairs, **options)


def test_numpy_numbers_are_numbers(pairs):
    recipe = regression(pairs, sizes=np.array([2, 4]), batch_size=np.int64(8))
    assert recipe.sizes == (2, 4)
    assert recipe.tokens_per_step == 8


def test_held_out_data_of_another_form_is_refused(pairs, tokens):
    other = TensorDataset(torch.zeros(9, 7), torch.zeros(9, 1))
    with pytest.raises(RecipeError, match=r"a held-out batch \(Tensor\(9, 7\)"):
        regression(pairs, eval_dataset=other)
    with pytest.raises(DataError, match="dataset is an array of token ids, but eval_dataset is a"):
        lm(tokens, eval_dataset=other)


def test_a_loss_that_sums_is_warned_of(pairs):
    with pytest.warns(ScalingWarning, match="the sum over its samples"):
        regression(pairs, loss_fn=nn.MSELoss(reduction="sum"))


def test_a_lazy_layer_is_refused_by_name(pairs):
    def build(width):
        return nn.Sequential(nn.LazyLinear(width), nn.Linear(width, 1))

    with pytest.raises(RecipeError, match=r"Sequential.0.weight is lazy"):
        regression(pairs, build)


def test_a_loss_with_weights_is_counted_and_moves_with_the_model(tokens):
    weighted = lm(tokens, loss_fn=nn.CrossEntropyLoss(weight=torch.ones(11)))
    assert weighted.inspect_size(4) == lm(tokens).inspect_size(4)


@pytest.mark.parametrize(
    "form", [list, tuple, bytes, torch.from_numpy], ids=["list", "tuple", "bytes", "tensor"]
)
def test_token_ids_come_in_many_forms(tokens, form):
    assert lm(form(tokens)).data.is_tokens


def test_two_tensors_are_told_about_tensor_dataset():
    with pytest.raises(DataError, match=r"tuple of 2 tensors. Give torch.utils.data.TensorDataset"):
        regression((torch.zeros(9, 4), torch.zeros(9, 1)))


class Twofold(Regressor):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.CrossEntropyLoss()])
def test_a_model_that_returns_a_tuple_is_told_how_to_take_it_apart(pairs, loss):
    with pytest.raises(RecipeError, match=r"loss\(model\(batch\[0\]\)\[0\], batch\[1\]\)"):
        regression(pairs, Twofold, loss_fn=loss)
    recipe = regression(
        pairs, Twofold, loss_fn=None,
        step_fn=lambda model, batch: nn.functional.mse_loss(model(batch[0])[0], batch[1]),
    )  # fmt: skip
    assert recipe.probed.loss > 0


def test_a_negative_loss_is_warned_of(pairs):
    with pytest.warns(ScalingWarning, match="loss is -9.*power law describes positive losses"):
        regression(pairs, loss_fn=lambda o, t: nn.functional.mse_loss(o, t) - 100)


def test_an_error_inside_a_sentence_loses_its_full_stop(tokens):
    with pytest.raises(RecipeError, match=r"Target \d+ is out of bounds\. Make the model's"):
        lm(tokens, model_kwargs={"vocab_size": 11}, loss_fn=lambda o, t: nn.functional.nll_loss(
            o.flatten(0, 1)[:, :2], t.flatten()))  # fmt: skip
