"""Faults that are not kills: each is injected, and the sweep survives it as docs/faults.md says."""

from __future__ import annotations

import math
import signal
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TinyLM, tiny_plan
from torch.utils.data import IterableDataset

from scaling_nb import Recipe, RunStore, StoreError, Sweep, follow
from scaling_nb.__main__ import main
from scaling_nb.events import StepLogged
from scaling_nb.executors import ThreadExecutor
from scaling_nb.training.memory import is_out_of_memory, run_bytes, split


def losses(sweep):
    return {run.run_id: run.loss for run in sweep.runs}


def cross_entropy(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def recipe_of(tokens, step, **options) -> Recipe:
    settings = {"sizes": [2, 4, 8], "eval_tokens": 512, "warmup_steps": 5, **options}
    return Recipe(TinyLM, size="width", model_kwargs={"vocab_size": 11}, dataset=tokens,
                  batch_size=4, tokens_per_sample=8, step_fn=step, flops="6ND",
                  optimizer={"lr": 1e-2}, **settings)  # fmt: skip


def finished(recipe, path, plan, **options) -> Sweep:
    sweep = Sweep(recipe, plan, store=path, **options).start()
    assert sweep.wait(60)
    return sweep


def until(condition, seconds=30):
    event = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        event.wait(0.02)
    raise AssertionError("it did not come to pass")


def test_a_full_disk_pauses_the_sweep_and_nothing_is_lost(tiny_recipe, tmp_path, monkeypatch):
    plan = tiny_plan(tiny_recipe, reuse="cooldown")
    expected = finished(tiny_recipe, tmp_path / "a.db", plan, executor="inline")
    connections, connect = [], sqlite3.connect

    def grab(*args, **options):
        connections.append(connect(*args, check_same_thread=False, **options))
        return connections[-1]

    monkeypatch.setattr("scaling_nb.store.sqlite3.connect", grab)
    store = RunStore(tmp_path / "b.db")
    until(lambda: len(connections) == 2)
    writer = connections[1]
    sweep = Sweep(tiny_recipe, plan, store=store, executor="inline")
    store.save_sweep(plan, tiny_recipe.parts())
    # Fills the table's first page, so that the first piece of a curve already needs another.
    store.append("filler", np.arange(335), np.zeros(335, np.float32))
    store.flush()
    # SQLite itself then answers as it does on a full disk.
    writer.execute("PRAGMA max_page_count = 1")
    sweep.start()
    until(lambda: sweep.state == "paused")
    assert "database or disk is full. Make room, then resume()" in str(sweep.status())
    assert sweep.resume().state == "paused"
    assert len(sweep.curve(plan.runs[0].run_id)[0]) == 0
    writer.execute("PRAGMA max_page_count = 1000000")
    assert sweep.resume().state in ("running", "finished")
    assert sweep.wait(60)
    assert sweep.state == "finished"
    assert sweep.status().problem == ""
    store.close()
    again = Sweep.open(tmp_path / "b.db", tiny_recipe)
    assert losses(again) == losses(expected)
    for spec in plan.runs:
        for mine, theirs in zip(again.curve(spec.run_id), expected.curve(spec.run_id), strict=True):
            assert np.array_equal(mine, theirs)


def test_a_call_that_waits_says_that_the_disk_is_full_and_goes_on_when_it_is_not(
    tiny_recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("scaling_nb.api.RETRY_SECONDS", 0.05)
    sweep = Sweep(tiny_recipe, tiny_plan(tiny_recipe), store=tmp_path / "runs.db",
                  checkpoint_every=0.01)  # fmt: skip
    (tmp_path / "runs.checkpoints").write_text("a file in the folder's place")
    thread = threading.Thread(target=follow, args=(sweep.start(),), kwargs={"progress": False})
    thread.start()
    said = []
    until(lambda: said.append(capsys.readouterr().err) or "paused: " in "".join(said))
    assert "no checkpoint can be written" in "".join(said)
    assert "Make room, then resume(). It is tried again every 0.05 s" in "".join(said)
    (tmp_path / "runs.checkpoints").unlink()
    thread.join(60)
    assert sweep.state == "finished"
    assert len(sweep.runs) == len(sweep.plan.runs)


def test_a_disk_that_takes_no_checkpoint_pauses_the_sweep(tiny_recipe, tmp_path):
    plan = tiny_plan(tiny_recipe)
    sweep = Sweep(tiny_recipe, plan, store=tmp_path / "runs.db", checkpoint_every=0.01)
    (tmp_path / "runs.checkpoints").write_text("a file in the folder's place")
    sweep.start()
    until(lambda: sweep.state == "paused")
    assert "no checkpoint can be written" in sweep.status().problem
    (tmp_path / "runs.checkpoints").unlink()
    sweep.resume()
    assert sweep.wait(60)
    assert len(sweep.runs) == len(plan.runs)


def test_a_read_only_folder_is_refused_with_the_remedy(tmp_path):
    folder = Path("/proc/self")
    if not folder.exists():
        folder = tmp_path
        folder.chmod(0o555)
    with pytest.raises(StoreError, match="in a folder that can be written"):
        RunStore(folder / "runs.db")


def damage(path: Path, *, keep_start: bool) -> None:
    """Overwrite pages in the middle, or the beginning with its header."""
    data = bytearray(path.read_bytes())
    page = 4096
    first = len(data) // page // 2 * page if keep_start else 0
    data[first : first + (2 * page if keep_start else 16)] = b"\xa5" * (
        2 * page if keep_start else 16
    )
    path.write_bytes(data)


@pytest.mark.parametrize("keep_start", [True, False])
def test_a_corrupt_store_says_so_and_can_be_salvaged(tiny_recipe, tmp_path, keep_start, capsys):
    path = tmp_path / "runs.db"
    plan = tiny_plan(tiny_recipe, reuse="cooldown")
    sweep = finished(tiny_recipe, path, plan, executor="inline")
    expected = losses(sweep)
    sweep.store.close()
    damage(path, keep_start=keep_start)
    with pytest.raises(StoreError, match="damaged: python -m scaling_nb recover .* salvages"):
        store = RunStore(path)
        try:
            for spec in plan.runs:
                store.curve(spec.run_id)
            store.runs()
            store.curve_sizes()
        finally:
            store.close()
    assert main(["recover", str(path)]) == 0
    assert "runs.recovered.db holds" in capsys.readouterr().out
    again = Sweep.open(tmp_path / "runs.recovered.db", tiny_recipe).start()
    assert again.wait(60)
    assert losses(again) == expected
    assert main(["recover", str(path)]) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("flipped", [b"\x01", b"\xa5"], ids=["text", "no text"])
def test_a_run_whose_bytes_flipped_is_named_and_trained_again(tiny_recipe, tmp_path, flipped):
    path = tmp_path / "runs.db"
    sweep = finished(tiny_recipe, path, tiny_plan(tiny_recipe), executor="inline")
    expected = losses(sweep)
    sweep.store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(path.read_bytes())
    at = data.find(b'"status": "finished"')
    data[at - 40 : at - 20] = 20 * flipped
    path.write_bytes(data)
    with pytest.raises(StoreError, match="recover .*runs.db salvages"):
        Sweep.open(path, tiny_recipe)
    assert main(["recover", str(path)]) == 0
    again = Sweep.open(tmp_path / "runs.recovered.db", tiny_recipe)
    assert len(again.runs) == len(expected) - 1
    assert again.start().wait(60)
    assert losses(again) == expected


def test_what_cannot_be_salvaged_is_said(tmp_path, capsys):
    (tmp_path / "runs.db").write_bytes(b"\x00" * 5000)
    assert main(["recover", str(tmp_path / "runs.db")]) == 1
    assert main(["recover", str(tmp_path / "none.db")]) == 1
    errors = capsys.readouterr().err
    assert "nothing in" in errors
    assert "there is no file" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["runs.db"]


@pytest.mark.parametrize("error", [MemoryError, torch.cuda.OutOfMemoryError])
def test_a_run_that_needs_too_much_memory_trains_alone_in_smaller_pieces(tokens, tmp_path, error):
    failures = []

    def step(model, batch):
        too_large = len(batch[0]) > 1 and model.hidden.out_features == 4
        if step.armed and too_large and batch[0].device.type != "meta":
            failures.append(1)
            raise error("out of memory")
        return cross_entropy(model, batch)

    step.armed = False
    recipe = recipe_of(tokens, step)
    plan = tiny_plan(recipe, reuse="cooldown")
    expected = losses(finished(recipe, tmp_path / "a.db", plan))
    step.armed = True
    sweep = finished(recipe, tmp_path / "b.db", plan, executor=ThreadExecutor(2))
    assert sweep.failures == ()
    assert len(failures) >= 3
    for run in sweep.runs:
        message = "each batch computed in 4 pieces, for memory"
        assert run.message == (message if run.size == 4 else "")
        assert run.loss == pytest.approx(expected[run.run_id], rel=1e-3)
        if run.size != 4:
            assert run.loss == expected[run.run_id]


def test_a_run_that_no_piece_fits_fails_with_the_reason(tokens, tmp_path):
    def step(model, batch):
        if step.armed and model.hidden.out_features == 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        return cross_entropy(model, batch)

    step.armed = False
    recipe = recipe_of(tokens, step)
    plan = tiny_plan(recipe, reuse="cooldown")
    step.armed = True
    sweep = finished(recipe, tmp_path / "runs.db", plan)
    assert {run.size for run in sweep.failures} == {4}
    assert all("can't allocate memory" in run.message for run in sweep.failures)


def test_jobs_wait_for_memory(tokens, tmp_path, monkeypatch):
    training, most = set(), []
    lock = threading.Lock()

    def step(model, batch):
        if model.training and batch[0].device.type != "meta":
            with lock:
                training.add(threading.current_thread().name)
                most.append(len(training))
        return cross_entropy(model, batch)

    recipe = recipe_of(tokens, step)
    plan = tiny_plan(recipe)
    need = run_bytes(recipe, 2)
    assert need > 4 * 4 * recipe.inspect_size(2).counts.total
    monkeypatch.setattr("scaling_nb.sweep.free_memory", lambda device: need)
    sweep = Sweep(recipe, plan, store=tmp_path / "runs.db", executor=ThreadExecutor(3))
    sweep.events.connect(lambda e: training.clear() if not isinstance(e, StepLogged) else None)
    most.clear()
    assert sweep.start().wait(60)
    assert len(sweep.runs) == len(plan.runs)
    assert max(most) == 1


def test_a_batch_is_split_in_order_whatever_it_is_made_of():
    x, y = torch.arange(10).reshape(5, 2), torch.arange(5)
    parts = split({"x": x, "more": (y, [1, 2, 3, 4, 5]), "scale": torch.tensor(2.0)}, 2)
    assert [len(part["x"]) for part in parts] == [3, 2]
    assert torch.equal(torch.cat([part["x"] for part in parts]), x)
    assert torch.equal(torch.cat([part["more"][0] for part in parts]), y)
    assert parts[1]["more"][1] == [4, 5]
    assert parts[1]["scale"] == 2.0
    assert not is_out_of_memory(RuntimeError("shape"))


def test_a_loss_of_nan_is_diverged_left_out_and_offered_half_the_rate(tokens, tmp_path):
    def step(model, batch):
        loss = cross_entropy(model, batch)
        step.seen += model.training and model.hidden.out_features == 4
        return loss * math.nan if step.seen > 30 and model.hidden.out_features == 4 else loss

    step.seen = 0
    recipe = recipe_of(tokens, step)
    step.seen = 0
    sweep = finished(recipe, tmp_path / "runs.db", tiny_plan(recipe, reuse="cooldown"))
    assert {(run.size, run.status) for run in sweep.failures} == {(4, "diverged")}
    assert "Try half the learning rate" in sweep.failures[0].message
    assert 4 not in sweep.runs.column("size")
    step.seen = -(10**6)
    old = sweep.failures[0]
    sweep.retry(old.run_id, lr=old.lr / 2)
    assert sweep.wait(30)
    assert old.lr / 2 in sweep.runs.column("lr")


class Once(IterableDataset):
    """A stream that can be read as often as it is told, and is empty after that."""

    def __init__(self) -> None:
        self.times = 10**6

    def __iter__(self):
        self.times -= 1
        if self.times < 0:
            return
        generator = torch.Generator().manual_seed(0)
        for _ in range(400):
            x = torch.randint(0, 11, (9,), generator=generator)
            yield x[:-1], x[1:]


def test_data_that_ends_early_fails_the_run_with_the_remedy(tmp_path):
    data = Once()
    recipe = Recipe(TinyLM, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11},
                    dataset=data, batch_size=4, flops="6ND", optimizer={"lr": 1e-2},
                    warmup_steps=5, eval_tokens=64)  # fmt: skip
    plan = tiny_plan(recipe)
    sweep = Sweep(recipe, plan, store=tmp_path / "runs.db", executor="inline")
    data.times = 1
    assert sweep.start().wait(60)
    assert sweep.failures
    assert all("the data ended" in run.message for run in sweep.failures)
    assert sweep.state == "finished"


def test_a_loss_of_the_wrong_shape_fails_its_run_alone(tokens, tmp_path):
    def step(model, batch):
        if model.training and model.hidden.out_features == 4:
            step.seen += 1
            if step.seen != 20:
                return cross_entropy(model, batch)
            return model(batch[0]).flatten(0, 1).logsumexp(1)
        return cross_entropy(model, batch)

    step.seen = 0
    recipe = recipe_of(tokens, step)
    plan = tiny_plan(recipe)
    sweep = Sweep(recipe, plan, store=tmp_path / "runs.db", executor="inline")
    step.seen = 0
    assert sweep.start().wait(60)
    (failed,) = sweep.failures
    assert "is Tensor(32,) float32, not one number" in failed.message
    assert len(sweep.runs) == len(plan.runs) - 1


def test_an_interrupted_cell_leaves_the_sweep_running(tiny_recipe, tmp_path):
    plan = tiny_plan(tiny_recipe, budgets=(4e6, 8e6))
    sweep = Sweep(tiny_recipe, plan, store=tmp_path / "runs.db")
    sweep.events.connect(lambda e: once() if isinstance(e, StepLogged) else None)
    interrupts = []

    def once():
        if not interrupts:
            interrupts.append(1)
            # What a notebook's stop button sends.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        sweep.start()
        sweep.wait(60)
        threading.Event().wait(5)
    assert sweep.wait(60)
    assert sweep.state == "finished"
    assert len(sweep.runs) == len(plan.runs)


@pytest.mark.filterwarnings("ignore:.*network file system")
def test_a_store_on_a_network_file_system_keeps_no_write_ahead_log(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr("scaling_nb.disk.file_system_of", lambda path: "nfs4")
    with RunStore(tmp_path / "runs.db") as store:
        connection = store.connect()
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        connection.close()
    with RunStore(tmp_path / "runs.db"):
        pass


def test_the_network_file_system_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("scaling_nb.disk.file_system_of", lambda path: "cifs")
    with pytest.warns(UserWarning, match=r"network file system \(cifs\).* rollback journal"):
        RunStore(tmp_path / "runs.db").close()
