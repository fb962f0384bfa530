import pytest
import torch
from torch import nn

import scaling_nb as snb
from scaling_nb.models import MuP, output_multiplier


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(11, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 11)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return self.head(self.norm(x))


MUP = MuP(
    inputs=["embedding", "norm"], hidden=["layers.*"], outputs=["head"], base_width=16, lr=1e-2
)


def test_rates_by_role():
    model = Net(64)
    rates = {}
    for group in MUP.optimizer(model).param_groups:
        for name, p in model.named_parameters():
            if any(p is q for q in group["params"]):
                rates[name] = (group["lr"], group["weight_decay"])
    assert len(rates) == len(list(model.parameters()))
    for name, (lr, decay) in rates.items():
        scaled = name.endswith("weight") and name.split(".")[0] in ("layers", "head")
        assert lr == pytest.approx(1e-2 / 4 if scaled else 1e-2), name
        assert decay == (0.1 if scaled else 0.0)


def test_initialisation_by_role():
    torch.manual_seed(0)
    model = MUP.build(Net)(width=256)
    assert model.layers[0].weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert model.layers[0].bias.abs().max() == 0
    assert model.head.weight.abs().max() == 0
    assert model.embedding.weight.std().item() == pytest.approx(1.0, rel=0.05)


def test_names_that_do_not_fit_say_so():
    with pytest.raises(snb.RecipeError, match=r"called 'body'.*embedding"):
        MuP(inputs=["body"], hidden=[], outputs=["head"], base_width=8, lr=1).optimizer(Net(8))
    with pytest.raises(snb.RecipeError, match=r"layers\.0\.weight.*no named layer"):
        MuP(inputs=["embedding"], hidden=[], outputs="head", base_width=8, lr=1).optimizer(Net(8))
    with pytest.raises(snb.RecipeError, match="no integer attribute 'd'"):
        MuP(
            inputs=["embedding", "norm"],
            hidden=["layers"],
            outputs=["head"],
            width="d",
            base_width=8,
            lr=1,
        ).optimizer(Net(8))


def test_a_recipe_knows_the_rates_it_was_made_with(tokens):
    def recipe(lr):
        mup = MuP(
            inputs=["embedding", "norm"], hidden=["layers"], outputs=["head"], base_width=16, lr=lr
        )
        return snb.Recipe(
            mup.build(Net),
            size="width",
            sizes=[4, 8],
            dataset=tokens,
            tokens_per_sample=8,
            optimizer=mup.optimizer,
        )

    assert recipe(1e-2).recipe_id == recipe(1e-2).recipe_id != recipe(2e-2).recipe_id


def test_the_multiplier_of_a_tied_output():
    assert output_multiplier(64, 16) == 0.25


class Tied(Net):
    def __init__(self, width):
        super().__init__(width)
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.embedding.weight


def tied_recipe(tokens, build):
    return snb.Recipe(
        build,
        size="width",
        sizes=[16, 32, 64, 128],
        dataset=tokens,
        batch_size=8,
        tokens_per_sample=16,
        optimizer=MUP.optimizer,
        eval_tokens=1024,
    )


def test_a_tied_head_keeps_the_embeddings_initialisation_and_its_rate():
    torch.manual_seed(0)
    model = MUP.build(Tied)(width=64)
    assert model.embedding.weight.std().item() == pytest.approx(1.0, rel=0.1)
    hidden = torch.randn(5, 64)
    expected = output_multiplier(64, 16) * hidden @ model.embedding.weight.T
    torch.testing.assert_close(model.head(hidden), expected)
    plain = [g for g in MUP.optimizer(model).param_groups if g["lr"] == 1e-2]
    assert any(p is model.embedding.weight for g in plain for p in g["params"])


def test_a_tied_model_trains_and_moves_alike_at_every_width(tokens):
    recipe = tied_recipe(tokens, MUP.build(Tied))
    check = snb.coordinate_check(recipe, seeds=3)
    assert {"embedding", "head", "layers.0"} <= set(check.layers)
    assert check.passed, str(check)
    assert (check.change[:, :, -1] > 1e-4).all()
    # Without the multiplier the logits of a tied head move more, the wider the model.
    bare = snb.coordinate_check(tied_recipe(tokens, Tied), seeds=3)
    assert bare.slopes["head"] > check.slopes["head"] + 0.3
