"""What goes wrong while a person's samples are read."""

from __future__ import annotations

import pytest
import torch
from helpers import Regressor
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from scaling_nb import DataError, Recipe, ScalingWarning


def regression(data, **options) -> Recipe:
    return Recipe(Regressor, size="width", sizes=[2, 4], dataset=data, loss_fn=nn.MSELoss(),
                  optimizer={"lr": 1e-2}, **options)  # fmt: skip


class Broken(Dataset):
    """A data set whose samples are what `sample(i)` makes them."""

    def __init__(self, sample):
        self.sample = sample

    def __len__(self):
        return 400

    def __getitem__(self, i):
        return self.sample(i)


class BrokenStream(IterableDataset):
    def __init__(self, sample):
        self.sample = sample

    def __iter__(self):
        return map(self.sample, range(400))


def ragged(i):
    return torch.zeros(4 + i % 2), torch.zeros(1)


def unlabelled(i):
    return {"image": torch.zeros(4)}["label"], torch.zeros(1)


@pytest.mark.parametrize("data", [Broken, BrokenStream])
@pytest.mark.parametrize(
    ("sample", "message", "cause"),
    [
        (ragged, "stack expects each tensor to be equal size.*pad or crop them", RuntimeError),
        (unlabelled, r"KeyError: 'label'.*such as \(inputs, targets\)", KeyError),
    ],
)
def test_what_a_data_set_raises_is_told_with_its_remedy(data, sample, message, cause):
    with pytest.raises(DataError, match=message) as caught:
        regression(data(sample))
    assert isinstance(caught.value.__cause__, cause)


def test_samples_of_the_held_out_set_are_named():
    with pytest.raises(DataError, match=r"eval_dataset\[0\] failed: KeyError"):
        regression(TensorDataset(torch.zeros(99, 4), torch.zeros(99, 1)),
                   eval_dataset=Broken(unlabelled))  # fmt: skip


def test_a_handful_of_held_out_samples_is_warned_of():
    pairs = TensorDataset(torch.zeros(400, 4), torch.ones(400, 1))
    few = torch.utils.data.Subset(pairs, range(40))
    with pytest.warns(ScalingWarning, match="of 40 samples only 2 are held out.*eval_dataset="):
        regression(few)
    regression(few, eval_dataset=pairs)
