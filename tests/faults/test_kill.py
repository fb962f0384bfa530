"""kill -9 of the whole process, at random moments of one sweep."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sweep_in_a_process import plan_of, recipe

from scaling_nb import RunStore, Sweep

TESTS = str(Path(__file__).parents[1])

# Imports once, then forks a fresh child for each life, before torch has run: lives are short.
NURSERY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from sweep_in_a_process import train
import helpers, scaling_nb.sweep, scaling_nb.executors
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        train(sys.argv[2], float(sys.argv[3]))
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


class Nursery:
    """Starts lives of one sweep in a store, and kills them."""

    def __init__(self, store: Path, factor: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, TESTS, str(store), str(factor)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def line(self) -> str:
        return self.process.stdout.readline().strip()

    def live(self, seconds: float | None, store: Path) -> None:
        """Begin a life; kill it `seconds` after its first commit (never, if None)."""
        before = committed(store)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        lines = [self.line(), self.line()]
        child = int(next(line for line in lines if line.isdigit()))
        assert "training" in lines
        if seconds is not None:
            give_up = time.monotonic() + 3
            while committed(store) == before and time.monotonic() < give_up:
                time.sleep(0.01)
            time.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        while self.line() != "ended":
            pass

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def committed(store: Path) -> tuple[int, int] | None:
    """Return what changes with every commit of a curve or a run."""
    if not store.exists():
        return None
    connection = sqlite3.connect(store, timeout=30)
    try:
        return (
            connection.execute("SELECT max(id), sum(n) FROM chunks").fetchone(),
            connection.execute("SELECT count(*) FROM runs").fetchone(),
        )
    except sqlite3.OperationalError:
        return None  # killed before there were tables
    finally:
        connection.close()


def acknowledged(store: Path) -> dict[str, dict[int, float]]:
    """Return every point of every curve that has been committed."""
    with RunStore(store) as opened:
        return {
            run_id: dict(zip(*(a.tolist() for a in opened.curve(run_id)), strict=True))
            for run_id, _, _ in opened.curve_sizes()
        }


def kill_and_compare(tmp_path: Path, kills: int, factor: float) -> None:
    made = recipe()
    plan = plan_of(made, factor)
    undisturbed = Sweep(made, plan, store=tmp_path / "undisturbed.db", executor="inline").start()
    assert undisturbed.wait(300)
    seconds = undisturbed.status().elapsed
    store = tmp_path / "killed.db"
    nursery = Nursery(store, factor)
    points: dict[str, dict[int, float]] = {}
    moments = np.random.default_rng(0).uniform(0, 2 * seconds / kills, size=kills)
    for moment in moments:
        nursery.live(float(moment), store)
        for run_id, curve in acknowledged(store).items():
            points.setdefault(run_id, {}).update(curve)
    nursery.live(None, store)
    nursery.close()
    sweep = Sweep.open(store, made)
    assert sweep.state == "finished"
    final = {run.run_id: run.loss for run in sweep.runs}
    assert final == {run.run_id: run.loss for run in undisturbed.runs}
    for spec in plan.runs:
        curve = sweep.curve(spec.run_id)
        for mine, theirs in zip(curve, undisturbed.curve(spec.run_id), strict=True):
            assert np.array_equal(mine, theirs)
        # What was once acknowledged is still there, with the value it had.
        now = dict(zip(*(array.tolist() for array in curve), strict=True))
        assert points.get(spec.run_id, {}).items() <= now.items()
    assert sum(map(len, points.values())) > 100
    connection = sqlite3.connect(store)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to make lives short")
def test_a_sweep_that_is_killed_ends_bit_for_bit_as_if_undisturbed(tmp_path):
    kill_and_compare(tmp_path, kills=3, factor=3.0)


LIFE = """
import sys
sys.path.insert(0, sys.argv[1])
if __name__ == "__main__":
    from sweep_in_a_process import plan_of, recipe
    from scaling_nb import Sweep
    made = recipe()
    sweep = Sweep(made, plan_of(made, 10), store=sys.argv[2], executor="processes",
                  checkpoint_every=0.02).start()
    sweep.wait()
"""


def test_a_sweep_in_worker_processes_that_is_killed_ends_as_if_undisturbed(tmp_path):
    made = recipe()
    plan = plan_of(made, 10)
    undisturbed = Sweep(made, plan, store=tmp_path / "undisturbed.db", executor="inline").start()
    assert undisturbed.wait(300)
    store = tmp_path / "killed.db"
    life = subprocess.Popen([sys.executable, "-c", LIFE, TESTS, str(store)])
    give_up = time.monotonic() + 120
    while (done := committed(store)) is None or done[0][0] is None:
        assert life.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.02)
    life.kill()
    life.wait()
    sweep = Sweep.open(store, made)
    assert sweep.executor.name == "processes"
    assert len(sweep.runs) < len(plan.runs)
    assert sweep.start().wait(300)
    assert {run.run_id: run.loss for run in sweep.runs} == {
        run.run_id: run.loss for run in undisturbed.runs
    }
    for spec in plan.runs:
        curves = zip(sweep.curve(spec.run_id), undisturbed.curve(spec.run_id), strict=True)
        assert all(np.array_equal(mine, theirs) for mine, theirs in curves)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_in_one_sweep(tmp_path):
    kill_and_compare(tmp_path, kills=50, factor=20.0)
