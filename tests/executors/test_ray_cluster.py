"""A sweep on three nodes: one of them lost, and the notebook too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import TinyLM, tiny_plan
from ray_cluster import HEAD, cluster, driven

import scaling_nb as snb
from scaling_nb.events import Noted, RunStarted, StepLogged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TESTS = Path(__file__).parents[1]

DRIVER = """
import sys
sys.path[:0] = [{tests!r}, {here!r}]
import ray, test_ray_cluster as t
import scaling_nb as snb
from pathlib import Path
if __name__ == "__main__":
    ray.init(address={address!r}, namespace="scaling_nb", _node_ip_address={head!r},
             log_to_driver=False)
    recipe = t.make_recipe()
    sweep = snb.Sweep(recipe, t.make_plan(recipe), store={store!r}, executor="ray",
                      checkpoint_every=0.05).start()
    sweep.events.connect(
        lambda e: print("step", flush=True) if isinstance(e, snb.events.StepLogged) else None)
    sweep.wait()
"""


def make_recipe():
    rng = np.random.default_rng(0)
    tokens = (np.cumsum(rng.choice([1, 1, 1, 2, 3], size=40_000)) % 11).astype(np.uint8)
    return snb.Recipe(
        TinyLM,
        size="width",
        sizes=[2, 4, 8, 16],
        model_kwargs={"vocab_size": 11},
        dataset=tokens,
        batch_size=4,
        tokens_per_sample=8,
        optimizer={"lr": 1e-2},
        eval_tokens=512,
        device="cpu",
    )


def make_plan(recipe):
    return tiny_plan(recipe, (4e6, 8e6, 1.6e7), reuse="cooldown", max_epochs=1e3)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    recipe = make_recipe()
    store = tmp_path_factory.mktemp("local") / "runs.db"
    sweep = snb.Sweep(recipe, make_plan(recipe), store=store, executor="threads").start()
    assert sweep.wait(300)
    return sweep


@pytest.fixture
def three_nodes():
    with cluster(n_nodes=2) as made:
        yield made


def assert_same(sweep, reference):
    assert len(sweep.runs) == len(reference.plan.runs) >= 12
    assert sweep.runs.run_ids == reference.runs.run_ids
    assert sweep.runs.L.tolist() == reference.runs.L.tolist()
    for run_id in reference.runs.run_ids:
        for got, expected in zip(sweep.curve(run_id), reference.curve(run_id), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_a_lost_node_loses_nothing(three_nodes, reference, tmp_path):
    """Every point once, and the same bits as here, though a node is killed in the middle."""
    import ray

    with driven(three_nodes):
        recipe = make_recipe()
        sweep = snb.Sweep(
            recipe,
            make_plan(recipe),
            store=tmp_path / "runs.db",
            executor="ray",
            checkpoint_every=0.05,
        )
        assert sweep.status().eta_text() == ""
        where, notes = set(), []
        on_the_last = threading.Event()

        def note(event):
            if isinstance(event, RunStarted):
                where.add(event.where.split()[0])
            elif isinstance(event, Noted):
                notes.append(event.message)
            elif isinstance(event, StepLogged) and "127.0.0.4" in where:
                on_the_last.set()

        sweep.events.connect(note)
        sweep.start()
        assert on_the_last.wait(120)
        three_nodes.kill("127.0.0.4")
        assert sweep.wait(300)
        assert_same(sweep, reference)
        assert where <= {"127.0.0.3", "127.0.0.4"}
        assert any("goes on elsewhere: 127.0.0.4 was lost" in note for note in notes)
        head = next(n for n in ray.nodes() if n["NodeManagerAddress"] == HEAD)
        actors = ray._private.state.actors().values()
        hosts = [actor for actor in actors if actor["ActorClassName"] == "Host"]
        assert len(hosts) == 1
        assert {actor["Address"]["NodeID"] for actor in hosts} <= {head["NodeID"], ""}


def test_a_killed_notebook_finds_its_runs_again(three_nodes, reference, tmp_path):
    store = tmp_path / "runs.db"
    script = tmp_path / "driver.py"
    script.write_text(
        DRIVER.format(
            tests=str(TESTS), here=str(Path(__file__).parent), address=three_nodes.address,
            head=HEAD, store=str(store),
        )
    )  # fmt: skip
    driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    for _ in range(5):
        assert driver.stdout.readline() == "step\n"
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    with driven(three_nodes):
        sweep = snb.Sweep.open(store, make_recipe(), executor="ray").start()
        assert sweep.wait(300)
        assert_same(sweep, reference)


ORPHAN = """
import sys, time
sys.path[:0] = [{tests!r}, {here!r}]
from scaling_nb.executors import ray as cluster
cluster._outlive_the_head()
cluster.HEAD_SECONDS = 5.0
import ray, test_ray_cluster as t
import scaling_nb as snb
if __name__ == "__main__":
    ray.init(address={address!r}, namespace="scaling_nb", _node_ip_address={head!r},
             log_to_driver=False)
    recipe = t.make_recipe()
    sweep = snb.Sweep(recipe, t.make_plan(recipe), store={store!r}, executor="ray").start()
    sweep.events.connect(
        lambda e: print("step", flush=True) if isinstance(e, snb.events.StepLogged) else None)
    try:
        sweep.wait()
    except snb.SweepError as error:
        print("said:", str(error).splitlines()[0], flush=True)
    time.sleep({lasts})
    began = time.monotonic()
    print("places:", sweep.executor.places(), time.monotonic() - began < 10, flush=True)
"""


def test_a_lost_head_ends_the_sweep_with_a_word_and_not_the_notebook(three_nodes, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(
        ORPHAN.format(
            tests=str(TESTS), here=str(Path(__file__).parent), address=three_nodes.address,
            head=HEAD, store=str(tmp_path / "runs.db"), lasts=70,
        )
    )  # fmt: skip
    driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "step\n"
    three_nodes.kill_head()
    said = driver.communicate(timeout=300)[0]
    assert "said: the sweep failed: SweepError: the cluster's head node has not answered" in said
    assert "places: a cluster whose head does not answer True" in said
    assert driver.returncode == 0
