"""An interrupted job goes on bit for bit; a damaged file costs time, never the sweep."""

from __future__ import annotations

import logging
import pickle
import zipfile

import numpy as np
import pytest
import torch
from helpers import TinyLM, tiny_plan
from run_events import curves, ended

from scaling_nb import Recipe
from scaling_nb.events import RunFailed
from scaling_nb.training.checkpoint import Checkpoint, checkpoint_key, remove_leftovers
from scaling_nb.training.control import Control, Stopped
from scaling_nb.training.trunk import train_trunk


def make(tokens, dropout=0.0, optimizer=None, **options) -> Recipe:
    return Recipe(TinyLM, size="width", sizes=[4, 8],
                  model_kwargs={"vocab_size": 11, "dropout": dropout}, dataset=tokens,
                  batch_size=4, tokens_per_sample=8, optimizer=optimizer or {"lr": 1e-2},
                  warmup_steps=5, eval_tokens=512, **options)  # fmt: skip


class Interrupt(Control):
    """Cancels at the n-th look, wherever training is then."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.looks, self.at = 0, at

    @property
    def orders(self):
        self.looks += 1
        if self.looks == self.at:
            self.cancel()
        return self._orders

    @orders.setter
    def orders(self, value):
        self._orders = value


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=np.float64(0.05), momentum=0.9)


@pytest.mark.parametrize(
    ("dropout", "optimizer"),
    [(0.0, None), (0.1, None), (0.0, sgd)],
    ids=["adamw", "dropout", "sgd"],
)
def test_a_job_that_is_interrupted_anywhere_ends_bit_for_bit_the_same(
    tokens, tmp_path, dropout, optimizer
):
    recipe = make(tokens, dropout, optimizer)
    job = tiny_plan(recipe, reuse="cooldown").jobs()[-1]
    expected: list = []
    train_trunk(recipe, job, emit=expected.append)
    assert len(ended(expected)) == len(job) == 3
    place = Checkpoint(tmp_path / "c", checkpoint_key(job[0]))
    events: list = []
    stops = 0
    for at in np.random.default_rng(0).integers(12, 60, size=100):
        todo = [spec for spec in job if spec.run_id not in ended(events)]
        if not todo:
            break
        torch.rand(3)
        try:
            train_trunk(
                recipe, todo, emit=events.append, control=Interrupt(int(at)), checkpoint=place
            )
        except Stopped:
            stops += 1
    assert stops >= 3
    assert ended(events) == ended(expected)
    assert curves(events) == curves(expected)
    assert list((tmp_path / "c").iterdir()) == []


def test_a_job_may_be_cut_after_any_of_its_runs(tokens, tmp_path):
    recipe = make(tokens)
    job = tiny_plan(recipe, reuse="cooldown").jobs()[0]
    whole: list = []
    train_trunk(recipe, job, emit=whole.append)
    place = Checkpoint(tmp_path, checkpoint_key(job[0]))
    first, second = [], []
    train_trunk(recipe, job[:1], emit=first.append, checkpoint=place, more_follow=True)
    [saved] = place.candidates()
    assert 0 < saved.trunk.step < job[0].n_steps
    train_trunk(recipe, job[1:], emit=second.append, checkpoint=place)
    assert ended(first) | ended(second) == ended(whole)
    assert curves(first) | curves(second) == curves(whole)


def interrupted(recipe, tmp_path, stops=(60, 40)):
    """Return a job that was stopped twice, its place, and its undisturbed losses."""
    job = tiny_plan(recipe, reuse="cooldown").jobs()[0]
    expected: list = []
    train_trunk(recipe, job, emit=expected.append)
    place = Checkpoint(tmp_path, checkpoint_key(job[0]))
    for at in stops:
        with pytest.raises(Stopped):
            train_trunk(recipe, job, emit=print, control=Interrupt(at), checkpoint=place)
    assert place.path.exists() == (len(stops) > 0)
    assert place.previous.exists() == (len(stops) > 1)
    return job, place, ended(expected)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    with zipfile.ZipFile(path) as archive:
        content = archive.read(max(archive.infolist(), key=lambda info: info.file_size))
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tokens, tmp_path, damage, caplog):
    recipe = make(tokens)
    job, place, expected = interrupted(recipe, tmp_path)
    newest, before = place.candidates()
    damage(place.path)
    with caplog.at_level(logging.WARNING):
        (usable,) = place.candidates()
    assert usable.trunk.step == before.trunk.step < newest.trunk.step
    assert "cannot be used" in caplog.text
    events: list = []
    train_trunk(recipe, job, emit=events.append, checkpoint=place)
    assert ended(events) == expected


def test_without_any_usable_checkpoint_the_job_starts_again(tokens, tmp_path):
    recipe = make(tokens)
    job, place, expected = interrupted(recipe, tmp_path)
    truncate(place.path)
    truncate(place.previous)
    events: list = []
    train_trunk(recipe, job, emit=events.append, checkpoint=place)
    assert ended(events) == expected


def test_a_checkpoint_from_somebody_else_cannot_run_code(tokens, tmp_path):
    recipe = make(tokens)
    job, place, expected = interrupted(recipe, tmp_path, stops=())

    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("touched").touch, ())

    tmp_path.mkdir(exist_ok=True)
    for attempt in (lambda p: torch.save({"version": 1, "key": place.key, "trunk": Evil()}, p),
                    lambda p: p.write_bytes(pickle.dumps(Evil()))):  # fmt: skip
        attempt(place.path)
        assert place.candidates() == []
    events: list = []
    train_trunk(recipe, job, emit=events.append, checkpoint=place)
    assert ended(events) == expected
    assert not (tmp_path / "touched").exists()


def test_checkpoints_come_at_their_pace(tokens, tmp_path, monkeypatch):
    recipe = make(tokens)
    job = tiny_plan(recipe, reuse="cooldown").jobs()[0]
    saves: list = []
    monkeypatch.setattr(Checkpoint, "save", lambda self, saved: saves.append(saved))
    place = Checkpoint(tmp_path, "k")
    train_trunk(recipe, job, emit=print, checkpoint=place)
    assert saves == []
    train_trunk(recipe, job, emit=print, checkpoint=place, every=0.01)
    assert len(saves) >= 2


def test_a_disk_that_takes_no_checkpoint_is_reported_and_training_goes_on(tokens, tmp_path):
    recipe = make(tokens)
    job = tiny_plan(recipe, reuse="cooldown").jobs()[0]
    (tmp_path / "file").write_text("in the folder's place")
    events: list = []
    train_trunk(
        recipe, job, emit=events.append, checkpoint=Checkpoint(tmp_path / "file", "k"), every=0.01
    )
    assert len(ended(events)) == len(job)
    assert not any(isinstance(e, RunFailed) for e in events)
    messages = {e.message for e in events if hasattr(e, "message")}
    assert any("no checkpoint can be written" in message for message in messages)


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    (tmp_path / "abc.77.tmp").write_bytes(b"half")
    (tmp_path / "abc.pt").write_bytes(b"whole")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["abc.pt"]


def test_a_file_of_torchs_older_form_is_no_checkpoint(tmp_path, caplog):
    place = Checkpoint(tmp_path, "key")
    # A zip archive may stand behind anything; torch would then read what is in front of it.
    torch.save({"version": 1, "key": "key"}, place.path)
    place.path.write_bytes(b"\x80\x02" + place.path.read_bytes())
    assert place.candidates() == []
    assert "does not begin as a checkpoint does" in caplog.text
