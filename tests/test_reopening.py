"""A stored sweep taken up again: its settings, its recipe, and a file that cannot be written."""

from __future__ import annotations

import sqlite3
import threading

import pytest
from helpers import TinyLM, tiny_plan

from scaling_nb import Recipe, RunStore, StoreError, Sweep, SweepError
from scaling_nb.events import RunStarted, StepLogged, StorageFailed
from scaling_nb.executors import InlineExecutor
from scaling_nb.reopening import differences
from scaling_nb.training.checkpoint import checkpoint_key


def finished(recipe, path, **options) -> Sweep:
    sweep = Sweep(recipe, tiny_plan(recipe, reuse="cooldown"), store=path, **options).start()
    assert sweep.wait(60)
    return sweep


def test_opening_takes_the_settings_from_the_store(tiny_recipe, tmp_path):
    finished(tiny_recipe, tmp_path / "runs.db", executor="inline", checkpoint_every=1.5)
    again = Sweep.open(tmp_path / "runs.db", tiny_recipe)
    assert (again.executor.name, again.checkpoint_every) == ("inline", 1.5)
    other = Sweep.open(tmp_path / "runs.db", tiny_recipe, executor="threads", checkpoint_every=9.0)
    assert (other.executor.name, other.checkpoint_every) == ("threads", 9.0)


def test_what_other_machines_are_writing_is_left_alone_until_their_run_is_done(
    tiny_recipe, tmp_path
):
    class Elsewhere(InlineExecutor):
        remote = True

    plan = tiny_plan(tiny_recipe, reuse="cooldown")
    written = tmp_path / "runs.checkpoints" / f"{checkpoint_key(plan.runs[0])}.77.tmp"
    written.parent.mkdir()
    written.write_bytes(b"half")
    seen = []
    sweep = Sweep(tiny_recipe, plan, store=tmp_path / "runs.db", executor=Elsewhere())
    sweep.events.connect(lambda e: seen.append(written.exists()) if type(e) is RunStarted else None)
    assert sweep.start().wait(60)
    assert seen[0]
    assert not written.parent.exists()


def test_what_differs_in_a_recipe_is_said_with_its_values(tiny_recipe, tokens, tmp_path):
    finished(tiny_recipe, tmp_path / "runs.db")

    def changed(**options):
        settings = {"model_kwargs": {"vocab_size": 11}, "optimizer": {"lr": 1e-2}, **options}
        return Recipe(TinyLM, size="width", sizes=[2, 4, 8, 16], dataset=tokens, batch_size=4,
                      tokens_per_sample=8, warmup_steps=5, eval_tokens=512, **settings)  # fmt: skip

    for other, said in (
        (changed(model_kwargs={"vocab_size": 12}), r"model_kwargs.vocab_size \(11 -> 12\)"),
        (changed(optimizer={"lr": 2e-2}), r"optimizer.lr \(0.01 -> 0.02\)"),
        (changed(loss_fn=lambda y, t: (y.mean() - 1) ** 2), r"loss_fn \("),
    ):
        with pytest.raises(SweepError, match=said) as caught:
            Sweep.open(tmp_path / "runs.db", other)
        assert "start a new sweep, in the same file if you like: Sweep(recipe," in str(caught.value)


def test_only_what_changed_is_named():
    old = {"a": 1, "f": {"code": ["00", []], "closure": {"k": 2}}, "data": "x"}
    assert differences(old, old) == []
    assert differences(old, {**old, "a": 2}) == ["a (1 -> 2)"]
    assert differences(old, {**old, "f": {"code": ["01", []], "closure": {"k": 3}}}) == [
        "f (its code)",
        "f.k (2 -> 3)",
    ]
    assert differences(old, {**old, "data": "y" * 99}) == ["data (its content)"]
    many = {str(i): i for i in range(9)}
    assert differences(dict.fromkeys(many), many)[-1] == "and 5 more"


def forbid_writing(monkeypatch) -> None:
    """Let SQLite answer as it does on a read-only mount, whoever runs the tests."""
    connect = sqlite3.connect

    def only_read(place, **options):
        return connect(place.replace("mode=rwc", "mode=ro"), **options)

    monkeypatch.setattr("scaling_nb.database.sqlite3.connect", only_read)


def test_a_store_that_cannot_be_written_can_be_seen(tiny_recipe, tmp_path, monkeypatch):
    sweep = finished(tiny_recipe, tmp_path / "runs.db", executor="inline")
    expected = {run.run_id: run.loss for run in sweep.runs}
    sweep.store.close()
    forbid_writing(monkeypatch)
    seen = Sweep.open(tmp_path / "runs.db", tiny_recipe)
    assert seen.state == "finished"
    assert {run.run_id: run.loss for run in seen.runs} == expected
    assert len(seen.curve(next(iter(expected)))[0]) > 10
    assert "its runs can be seen, none trained" in str(seen.status())
    with pytest.raises(StoreError, match="Copy it to a folder that can be written"):
        seen.start()
    seen.store.close()
    with pytest.raises(StoreError, match="in a folder that can be written"):
        RunStore(tmp_path / "new.db")


def test_a_store_that_is_deleted_under_a_sweep_is_noticed(tiny_recipe, tmp_path):
    path, aside = tmp_path / "runs.db", tmp_path / "aside.db"
    plan = tiny_plan(tiny_recipe, reuse="cooldown")
    expected = finished(tiny_recipe, tmp_path / "other.db", executor="inline")
    sweep = Sweep(tiny_recipe, plan, store=path, executor="inline")
    moved, paused = threading.Event(), threading.Event()

    def move(event):
        if isinstance(event, StepLogged) and not moved.is_set():
            moved.set()
            path.rename(aside)
        if isinstance(event, StorageFailed):
            paused.set()

    sweep.events.connect(move)
    sweep.start()
    assert paused.wait(60)
    assert "deleted or replaced while it was in use. Put it back, then resume()" in str(
        sweep.status()
    )
    assert sweep.resume().state == "paused"
    assert not path.exists()
    aside.rename(path)
    assert sweep.resume().state in ("running", "finished")
    assert sweep.wait(60)
    assert [run.loss for run in sweep.runs] == [run.loss for run in expected.runs]


def test_a_notebook_may_change_its_folder(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = finished(tiny_recipe, "runs.db", executor="inline")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(sweep.curve(sweep.plan.runs[0].run_id)[0]) > 10
    assert not list((tmp_path / "elsewhere").iterdir())


def test_workers_are_warmed_as_a_sweep_is_made_that_has_something_to_train(
    tiny_recipe, tmp_path, monkeypatch
):
    warmed = []
    monkeypatch.setattr("scaling_nb.sweep.warm_up", lambda executor, _: warmed.append(executor))
    sweep = finished(tiny_recipe, tmp_path / "runs.db", executor="inline")
    assert warmed == [sweep.executor]
    Sweep.open(tmp_path / "runs.db", tiny_recipe)
    assert len(warmed) == 1
