from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import tiny_plan
from hypothesis import given, settings, strategies as st

from scaling_nb import Run, RunStore, StoreError

RUN = Run(run_id="a", N=10.0, D=20.0, C=1200.0, loss=3.0, budget=1200.0, group="t")


def points(start: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.arange(start, start + n)
    return tokens, (tokens % 97).astype(np.float32)


def test_runs_come_back_as_they_were(tmp_path):
    with RunStore(tmp_path / "runs.db") as store:
        store.put_run(RUN)
    with RunStore(tmp_path / "runs.db") as store:
        assert str(store.runs()) == str({"a": RUN})


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(0, 300), max_size=12))
def test_chunks_come_back_as_one_curve(tmp_path_factory, sizes):
    with RunStore(tmp_path_factory.mktemp("s") / "runs.db") as store:
        start = 0
        for n in sizes:
            store.append("a", *points(start, n))
            store.append("b", *points(start, 1))
            start += n
        store.flush()
        tokens, loss = store.curve("a")
    assert np.array_equal(tokens, np.arange(start))
    assert np.array_equal(loss, points(0, start)[1])


def test_a_curve_can_be_forgotten(tmp_path):
    with RunStore(tmp_path / "runs.db") as store:
        store.append("a", *points(0, 5))
        store.append("b", *points(0, 5))
        store.clear_curve("a")
        store.append("a", *points(0, 2))
        store.flush()
        assert len(store.curve("a")[0]) == 2
        assert len(store.curve("b")[0]) == 5


def test_a_sweep_is_found_again(tmp_path, tiny_recipe):
    plan = tiny_plan(tiny_recipe)
    with RunStore(tmp_path / "runs.db") as store:
        assert store.load_sweep() is None
        store.save_sweep(plan, tiny_recipe.parts())
        store.flush()
    with RunStore(tmp_path / "runs.db") as store:
        stored = store.load_sweep()
    assert stored.plan == plan
    assert stored.sweep_id == plan.plan_id
    assert stored.recipe_parts == tiny_recipe.parts()


def test_many_threads_may_write(tmp_path):
    with RunStore(tmp_path / "runs.db") as store:
        threads = [
            threading.Thread(
                target=lambda i=i: [store.append(f"r{i}", *points(k * 10, 10)) for k in range(50)]
            )
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.flush()
        for i in range(4):
            assert np.array_equal(store.curve(f"r{i}")[0], np.arange(500))


def test_two_stores_on_one_file_see_each_other(tmp_path):
    with RunStore(tmp_path / "runs.db") as one, RunStore(tmp_path / "runs.db") as two:
        one.put_run(RUN)
        one.flush()
        assert list(two.runs()) == ["a"]


def test_a_folder_is_made(tmp_path):
    with RunStore(tmp_path / "new" / "folder" / "runs.db") as store:
        assert store.path.exists()


def test_what_is_no_database_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be looked at" * 9)
    with pytest.raises(StoreError, match=r"notes.txt cannot be opened .* not a database"):
        RunStore(tmp_path / "notes.txt")


def test_another_database_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE songs (title)")
    connection.close()
    with pytest.raises(StoreError, match="is an SQLite file, but no run store"):
        RunStore(tmp_path / "other.db")


def test_a_newer_store_is_refused(tmp_path):
    RunStore(tmp_path / "runs.db").close()
    connection = sqlite3.connect(tmp_path / "runs.db")
    connection.execute("UPDATE meta SET value = '99'")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="store version 99, and this scaling_nb reads up to 1"):
        RunStore(tmp_path / "runs.db")


def test_a_folder_in_the_files_place_is_refused(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened as a run store"):
        RunStore(tmp_path)


def test_a_closed_store_says_so(tmp_path):
    store = RunStore(tmp_path / "runs.db")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed. Open it again"):
        store.put_run(RUN)


def test_a_write_that_fails_is_reported_to_whoever_writes_next(tmp_path):
    store = RunStore(tmp_path / "runs.db")
    connection = sqlite3.connect(tmp_path / "runs.db")
    connection.execute("DROP TABLE runs")
    connection.commit()
    connection.close()
    store.put_run(RUN)
    with pytest.raises(StoreError, match="cannot be written: no such table: runs"):
        store.flush()
    with pytest.raises(StoreError, match="cannot be written"):
        store.close()


WRITER = """
import sys, numpy as np
from scaling_nb.store import RunStore
store = RunStore(sys.argv[1])
k = 0
while True:
    for _ in range(20):
        store.append("a", np.array([k]), np.array([k], dtype=np.float32)); k += 1
    store.flush()
    print(k, flush=True)
"""


def test_no_acknowledged_point_is_lost_when_the_process_is_killed(tmp_path):
    path = tmp_path / "runs.db"
    acknowledged = 0
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(5):
            line = writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.communicate()[0].split()
        acknowledged += int((rest or [line])[-1])
        with RunStore(path) as store:
            assert len(store.curve("a")[0]) >= acknowledged
            acknowledged = len(store.curve("a")[0])


def test_a_steady_stream_of_writes_is_committed_as_it_comes(tmp_path, monkeypatch):
    monkeypatch.setattr("scaling_nb.store.FLUSH_SECONDS", 0.05)
    with RunStore(tmp_path / "runs.db") as store:
        pause, seen = threading.Event(), 0
        for k in range(200):
            store.append("a", *points(k, 1))
            pause.wait(0.01)
            seen = max(seen, len(store.curve("a")[0]))
            if seen:
                break
        assert 0 < seen < 200
