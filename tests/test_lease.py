"""Two kernels, one store: one trains, the other sees it live."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sweep_in_a_process import plan_of, recipe

from scaling_nb import RunStore, Sweep, SweepError, follow
from scaling_nb.events import RunFinished, RunStarted, StepLogged
from scaling_nb.lease import STALE_SECONDS, Holder, Lease, current_holder

SCRIPT = Path(__file__).parent / "sweep_in_a_process.py"


def lease(store, **options):
    return Lease(store, "plan", state=lambda: "running", on_lost=lambda: None, **options)


def test_one_holds_the_lease_until_it_lets_go(tmp_path):
    with RunStore(tmp_path / "runs.db") as store, RunStore(tmp_path / "runs.db") as other:
        assert current_holder(store) is None
        first, second = lease(store), lease(other)
        assert first.acquire() is None
        assert first.acquire() is None
        assert second.acquire().owner == first.owner == current_holder(other).owner
        first.release()
        first.release()
        assert second.acquire() is None
        second.release()


def test_a_holder_is_dead_without_its_process_or_its_heartbeat():
    here = {"owner": "x", "host": socket.gethostname(), "sweep_id": "p", "state": "running"}
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert Holder(**here, pid=os.getpid(), beat=time.time()).alive
    assert not Holder(**here, pid=gone.pid, beat=time.time()).alive
    assert not Holder(**here, pid=os.getpid(), beat=time.time() - STALE_SECONDS - 1).alive
    assert Holder(**{**here, "host": "far"}, pid=gone.pid, beat=time.time()).alive


def test_whoever_is_taken_over_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("scaling_nb.lease.BEAT_SECONDS", 0.02)
    lost = []
    with RunStore(tmp_path / "runs.db") as store:
        first = Lease(store, "p", state=lambda: "running", on_lost=lambda: lost.append(1))
        assert first.acquire() is None
        connection = store.connect()
        connection.execute("UPDATE lease SET owner = 'another'")
        connection.close()
        deadline = time.monotonic() + 10
        while not lost and time.monotonic() < deadline:
            time.sleep(0.02)
        first.release()
        assert lost == [1]
        assert current_holder(store).owner == "another"


def test_a_second_kernel_sees_the_sweep_live_and_takes_over_when_the_first_is_gone(tmp_path):
    store = tmp_path / "runs.db"
    first = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(store), "25"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stdout.readline().strip() == "training"
    made = recipe()
    events = []
    sweep = Sweep.open(store, made)
    sweep.events.connect(events.append)
    assert sweep.state == "running"
    assert f"process {first.pid} on this machine; read-only here" in str(sweep.status())
    for act in (sweep.pause, sweep.cancel, sweep.resume):
        with pytest.raises(SweepError, match="is trained by process .* read-only here"):
            act()
    assert sweep.start() is sweep
    deadline = time.monotonic() + 30
    while not any(isinstance(e, StepLogged) for e in events) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sweep.status().tokens_seen
    other = Sweep(made, plan_of(made, 0.5), store=store)
    with pytest.raises(SweepError, match="another sweep trains in"):
        other.start()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    assert sweep.wait(30)
    assert sweep.state == "cancelled"
    before = len(sweep.runs)
    sweep.start()
    while len(sweep.runs) == before and time.monotonic() < deadline + 30:
        time.sleep(0.05)
    assert any(isinstance(e, RunFinished) for e in events)
    sweep.cancel()
    assert sweep.wait(30)


def test_the_same_cell_run_twice_finds_the_running_sweep(tmp_path):
    made = recipe()
    plan = plan_of(made, 20)
    sweep = Sweep(made, plan, store=tmp_path / "runs.db").start()
    again = Sweep(recipe(), plan_of(made, 20), store=str(tmp_path / "runs.db")).start()
    assert again is sweep
    assert Sweep.open(tmp_path / "runs.db", made) is sweep
    assert Sweep(made, plan, store=tmp_path / "other.db") is not sweep
    sweep.cancel()
    assert again.wait(30)
    anew = Sweep(made, plan, store=tmp_path / "runs.db")
    assert anew is not sweep
    assert anew.state == "new"


def test_whoever_was_taken_over_writes_nothing_any_more(tmp_path):
    with RunStore(tmp_path / "runs.db") as store:
        first = Lease(store, "p", state=lambda: "running", on_lost=lambda: None)
        assert first.acquire() is None
        store.append("mine", np.arange(3), np.zeros(3, np.float32))
        store.flush()
        connection = store.connect()
        connection.execute("UPDATE lease SET owner = 'another'")
        connection.close()
        store.append("mine", np.arange(3, 6), np.zeros(3, np.float32))
        store.flush()
        assert first.lost
        assert len(store.curve("mine")[0]) == 3
        first.release()
        store.append("mine", np.arange(3, 6), np.zeros(3, np.float32))
        store.flush()
        assert len(store.curve("mine")[0]) == 6


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_process_that_wakes_after_it_was_taken_over_changes_nothing(tmp_path, monkeypatch):
    store = tmp_path / "runs.db"
    first = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(store), "10"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stdout.readline().strip() == "training"
    made = recipe()
    sweep = Sweep.open(store, made, executor="inline")
    seen = threading.Event()
    sweep.events.connect(lambda e: seen.set() if isinstance(e, StepLogged) else None)
    assert seen.wait(60)
    os.kill(first.pid, signal.SIGSTOP)
    # Its heart has stopped: nobody need wait until that is certain.
    monkeypatch.setattr("scaling_nb.lease.STALE_SECONDS", 0.0)
    assert sweep.wait(30)
    assert sweep.abandoned
    monkeypatch.undo()
    connection = sweep.store.connect()
    connection.execute("UPDATE lease SET beat = 0")
    connection.close()
    assert sweep.start().state == "running"
    assert sweep.wait(120)
    assert sweep.state == "finished"
    ends = {run.run_id: run.loss for run in sweep.runs}
    curves = {run_id: sweep.curve(run_id)[0].tolist() for run_id in ends}
    os.kill(first.pid, signal.SIGCONT)
    out, complaints = first.communicate(timeout=120)
    assert "done" in out, complaints
    again = Sweep.open(store, made)
    assert again.state == "finished"
    assert {run.run_id: run.loss for run in again.runs} == ends
    for run_id, tokens in curves.items():
        now = again.curve(run_id)[0].tolist()
        assert now == tokens == sorted(set(tokens))


def test_following_a_process_that_is_killed_ends_with_every_run(tmp_path, capsys):
    store = tmp_path / "runs.db"
    first = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(store), "10"], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline().strip() == "training"
    made = recipe()
    sweep = Sweep(made, plan_of(made, 10), store=store, executor="inline")
    assert sweep.watched

    def kill(event):
        if isinstance(event, StepLogged) and first.poll() is None:
            first.kill()
            first.wait()

    sweep.events.connect(kill)
    follow(sweep.start(), progress=False)
    first.stdout.close()
    assert sweep.state == "finished"
    assert len(sweep.runs) == len(sweep.plan.runs)
    assert "is gone, and runs are left" in capsys.readouterr().err


def test_a_sweep_that_was_trained_elsewhere_since_it_was_made_trains_nothing_anew(tmp_path):
    made = recipe()
    early = Sweep(made, plan_of(made), store=tmp_path / "runs.db")
    other = Sweep(made, plan_of(made), store=tmp_path / "runs.db", executor="inline").start()
    assert other.wait(60)
    started = []
    early.events.connect(lambda e: started.append(e) if isinstance(e, RunStarted) else None)
    assert early.start().wait(60)
    assert early.state == "finished"
    assert started == []
