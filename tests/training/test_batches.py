from __future__ import annotations

import itertools
import random
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from scaling_nb import DataError
from scaling_nb.training.batches import (
    TokenWindows,
    infer_tokens_per_sample,
    move,
    n_samples,
)
from scaling_nb.training.data import prepare_data
from scaling_nb.training.generators import seeded_globals


class Numbers(IterableDataset):
    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self):
        for i in range(self.n):
            yield torch.tensor([float(i)]), torch.tensor([float(i)])


def prepared(data, **options):
    return prepare_data(data, **{"batch_size": 4, "eval_tokens": 8, "model_kwargs": {}, **options})


def flat(batch) -> list[float]:
    return batch[0].flatten().tolist()


def taken(source, n, seed=0, start=0):
    return [flat(b) for b in itertools.islice(source.batches(seed, start), n)]


TABLE = TensorDataset(torch.arange(100.0)[:, None], torch.arange(100.0)[:, None])
SOURCES = {
    "tokens": lambda: np.arange(400) % 251,
    "dataset": lambda: TABLE,
    "stream": lambda: Numbers(80),
    "loader": lambda: DataLoader(TABLE, batch_size=5),
    "shuffled loader": lambda: DataLoader(TABLE, batch_size=5, shuffle=True),
}


@pytest.mark.parametrize("kind", SOURCES)
class TestEverySource:
    """The contract of a batch source."""

    def source(self, kind):
        return prepared(SOURCES[kind](), tokens_per_sample=8 if kind == "tokens" else None).source

    def test_the_same_seed_gives_the_same_batches(self, kind):
        assert taken(self.source(kind), 40, seed=3) == taken(self.source(kind), 40, seed=3)

    def test_starting_in_the_middle_continues_the_same_order(self, kind):
        source = self.source(kind)
        whole = taken(source, 45)
        for start in (0, 1, 17, 30):
            assert taken(source, 10, start=start) == whole[start : start + 10]

    def test_batches_do_not_end(self, kind):
        assert len(taken(self.source(kind), 200)) == 200

    def test_every_batch_is_whole(self, kind):
        source = self.source(kind)
        for batch in itertools.islice(source.batches(0), 60):
            per_sample = 8 if kind == "tokens" else 1
            assert n_samples(batch) * per_sample == source.tokens_per_step

    def test_held_out_samples_are_never_trained_on(self, kind):
        data = prepared(SOURCES[kind](), tokens_per_sample=8 if kind == "tokens" else None)
        if kind == "tokens":
            assert max(map(max, taken(data.source, 100))) <= 251
            return
        held_out = {x for batch in data.eval_batches for x in flat(batch)}
        trained = {x for batch in taken(data.source, 100) for x in batch}
        assert held_out
        assert not held_out & trained

    def test_threads_get_the_same_batches_as_one(self, kind):
        source = self.source(kind)
        expected = taken(source, 30, seed=1)
        results = [None] * 4

        def work(i):
            results[i] = taken(source, 30, seed=1)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(result == expected for result in results)


@given(
    n=st.integers(20, 400),
    context=st.integers(1, 9),
    batch_size=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_an_epoch_of_windows_sees_each_token_once(n, context, batch_size, seed):
    windows = TokenWindows(tokens=np.arange(n), context=context, batch_size=batch_size)
    per_epoch = windows.n_windows // batch_size
    if per_epoch == 0:
        return
    batches = list(itertools.islice(windows.batches(seed), per_epoch))
    seen = torch.cat([inputs.flatten() for inputs, _ in batches])
    assert len(seen) == len(set(seen.tolist())) == per_epoch * batch_size * context
    assert all(torch.equal(targets, inputs + 1) for inputs, targets in batches)


def test_seeds_and_epochs_have_orders_of_their_own():
    windows = TokenWindows(tokens=np.arange(401), context=4, batch_size=5)
    first, second = taken(windows, 20), taken(windows, 40)[20:]
    assert first != second
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second))
    assert taken(windows, 20, seed=1) != first


def test_a_memmap_is_read_where_it_lies(tmp_path):
    array = np.memmap(tmp_path / "ids.bin", dtype=np.uint16, mode="w+", shape=(5000,))
    array[:] = np.arange(5000) % 97
    data = prepared(array, tokens_per_sample=10)
    assert isinstance(data.source.tokens, np.memmap)
    assert flat(next(data.source.batches(0)))[1] == (flat(next(data.source.batches(0)))[0] + 1) % 97


def test_the_tail_of_a_token_array_is_held_out():
    data = prepared(np.arange(1000), tokens_per_sample=10, eval_tokens=10**6)
    held_out = torch.cat([inputs.flatten() for inputs, _ in data.eval_batches])
    assert held_out.min() == 950
    assert int(data.source.tokens.max()) == 949


def test_a_custom_sampler_needs_held_out_data():
    from torch.utils.data import SubsetRandomSampler

    loader = DataLoader(TABLE, batch_size=5, sampler=SubsetRandomSampler(range(50)))
    with pytest.raises(DataError, match=r"own sampler \(SubsetRandomSampler\).*eval_dataset="):
        prepared(loader)
    assert prepared(loader, eval_dataset=TABLE).source.tokens_per_step == 5


def test_a_stream_that_holds_only_held_out_batches_is_an_error():
    data = prepared(Numbers(8))
    with pytest.raises(DataError, match="ended before its first training batch"):
        next(data.source.batches(0))


def test_the_unit_of_data_is_inferred():
    ids = torch.zeros(3, 17, dtype=torch.long)
    assert infer_tokens_per_sample((ids, ids)) == 17
    assert infer_tokens_per_sample({"mask": torch.ones(3), "input_ids": ids}) == 17
    assert infer_tokens_per_sample((torch.zeros(3, 17), ids)) == 1
    assert infer_tokens_per_sample((torch.zeros(3, 3, 8, 8), torch.zeros(3).long())) == 1


def test_nested_batches_move_as_a_whole():
    batch = {"a": torch.ones(2), "b": [torch.ones(2), (torch.ones(2), "text")]}
    moved = move(batch, torch.device("meta"))
    assert moved["a"].is_meta
    assert moved["b"][1][0].is_meta
    assert moved["b"][1][1] == "text"


def test_seeding_the_globals_is_undone_even_after_an_error():
    before = torch.random.get_rng_state()
    with pytest.raises(KeyError), seeded_globals(3):
        torch.rand(5)
        raise KeyError
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_shuffling_batch_sampler_needs_held_out_data():
    class Shuffling:
        def __iter__(self):
            return iter(torch.randperm(100).view(-1, 5).tolist())

        def __len__(self):
            return 20

    loader = DataLoader(TABLE, batch_sampler=Shuffling())
    with pytest.raises(DataError, match=r"own sampler \(Shuffling\).*eval_dataset="):
        prepared(loader)


def test_only_what_torch_orders_by_itself_is_ordered_anew():
    class Own(RandomSampler):
        pass

    few = RandomSampler(TABLE, replacement=True, num_samples=50)
    for sampler in (few, Own(TABLE), RandomSampler(range(50))):
        loader = DataLoader(TABLE, batch_size=5, sampler=sampler)
        with pytest.raises(DataError, match="nothing can be held out"):
            prepared(loader)
        source = prepared(loader, eval_dataset=TABLE).source
        assert source.loader is loader
    loader = DataLoader(TABLE, batch_size=5, sampler=few)
    assert prepared(loader, eval_dataset=TABLE).source.unique_tokens == 50


def test_a_workers_own_settings_are_kept():
    loader = DataLoader(TABLE, batch_size=5, shuffle=True, worker_init_fn=print)
    assert prepared(loader).source.loader_options == {"worker_init_fn": print, "timeout": 0}


class Noisy(IterableDataset):
    """Augmented with torch's, numpy's and Python's generators, in one order."""

    def __iter__(self):
        for i in range(80):
            noise = torch.randn(1) + random.random() + np.random.rand()  # noqa: NPY002
            yield (i + noise).float(), torch.tensor([float(i)])


class Augmented(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return torch.tensor([float(i)]) + torch.randn(1), torch.tensor([float(i)])


def masked(samples):
    x, y = torch.utils.data.default_collate(samples)
    return x * (torch.rand(x.shape) > 0.3), y


DRAWN = {
    "stream": Noisy,
    "dataset": Augmented,
    "collate": lambda: DataLoader(TABLE, batch_size=4, shuffle=True, collate_fn=masked),
    "workers": lambda: DataLoader(Augmented(), batch_size=4, shuffle=True, num_workers=1),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_drawn_batches_do_not_depend_on_what_was_drawn_before(kind):
    source = prepared(DRAWN[kind]()).source
    outside = torch.get_rng_state()
    whole = taken(source, 12, seed=1)
    assert torch.equal(outside, torch.get_rng_state())
    torch.rand(5)
    assert taken(source, 3, seed=1, start=5) == whole[5:8]
    assert taken(source, 3, seed=2) != whole[:3]


def test_a_stream_that_shuffles_itself_needs_held_out_data():
    class Shuffled(IterableDataset):
        def __iter__(self):
            for i in torch.randperm(80).tolist():
                yield torch.tensor([float(i)]), torch.tensor([float(i)])

    with pytest.raises(DataError, match="it shuffles itself. Give eval_dataset="):
        prepared(Shuffled())
    prepared(Shuffled(), eval_dataset=TABLE)
    assert prepared(Noisy()).source.put_aside == 2
