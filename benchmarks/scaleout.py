"""What a cluster costs: overhead of a run, latency of its metrics, and the host at scale.

    python benchmarks/scaleout.py [--queued 200] [--address ADDRESS]
    python benchmarks/scaleout.py --simulate

The first form trains tiny real runs on a Ray cluster (one is started on this machine if there is
none): 200 of them queued at once, whose steps are next to nothing, so that what is left is the
overhead; then one long run, whose points are timed from the trainer to the driver.

The second form asks where 10,000 runs on 1,000 GPUs would be stopped. It plays the messages of
1,000 tasks, one every 0.2 s each, against each part by itself: the host's mailbox, the driver's
store, and, on a real cluster of this machine, the calls that one actor answers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn

import scaling_nb as snb
from scaling_nb.events import RunFinished, RunStarted, StepLogged
from scaling_nb.executors.mailbox import Mailbox
from scaling_nb.executors.ray_host import gathering_seconds
from scaling_nb.training.pace import FLUSH_SECONDS

N_TASKS, N_RUNS = 1_000, 10_000
POINTS = 20
"""Steps a message of a GPU run brings: 100 a second."""


class Tiny(nn.Module):
    """Next to no arithmetic."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, width), nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(x))


def tiny_recipe() -> snb.Recipe:
    return snb.Recipe(
        Tiny,
        size="width",
        sizes=list(range(2, 12)),
        dataset=np.arange(90_000) % 5,
        batch_size=4,
        tokens_per_sample=8,
        optimizer={"lr": 1e-2},
        warmup_steps=2,
        eval_tokens=64,
        device="cpu",
    )


def plan_of(recipe: snb.Recipe, budgets: list[float], seeds: int) -> snb.SweepPlan:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", snb.ScalingWarning)
        return snb.plan_sweep(
            recipe, budgets, seeds=seeds, min_steps=3, tokens_per_param=(0.0, 1e9), max_epochs=1e6
        )


def overhead(queued: int, executor: snb.RayExecutor) -> None:
    """Time `queued` short runs on the cluster against the same runs in one thread here."""
    recipe = tiny_recipe()
    plan = plan_of(recipe, [6e4], seeds=max(1, queued // 10))
    n = len(plan.runs)
    took = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, how in (("warm", executor), ("ray", executor), ("inline", "inline")):
            sweep = snb.Sweep(recipe, plan, store=Path(folder) / f"{name}.db", executor=how)
            first, last = [0.0], [0.0]

            def note(event: object, first: list[float] = first, last: list[float] = last) -> None:
                # Workers that import torch, and the host that starts, are paid once a sweep.
                if isinstance(event, RunStarted) and not first[0]:
                    first[0] = time.perf_counter()
                if isinstance(event, RunFinished):
                    last[0] = time.perf_counter()

            sweep.events.connect(note)
            began = time.perf_counter()
            sweep.start()
            assert sweep.wait(600)
            assert len(sweep.runs) == n
            took[name] = (last[0] - first[0], first[0] - began)
    workers = executor.workers(recipe)
    own = took["inline"][0] / n
    spent = took["ray"][0] * workers / n
    print(f"{n} queued runs on {workers} workers, first start to last end: {took['ray'][0]:.2f} s")
    print(f"  a run takes {1e3 * own:.2f} ms in one thread here, {1e3 * spent:.2f} ms of a worker")
    print(f"  overhead a run: {1e3 * (took['ray'][0] / n - own / workers):.2f} ms of the sweep")
    print(f"  from start() to the first run's start: {took['ray'][1]:.2f} s")


def latency(executor: snb.RayExecutor) -> None:
    """Time points of one run from the trainer's report to the driver's event."""
    clock: list[float] = []

    def step(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        # The loss of a step carries when it was taken: seconds within the hour.
        out = model(batch[0])
        loss = nn.functional.cross_entropy(out.flatten(0, 1), batch[1].flatten())
        return loss * 0.0 + (time.time() % 3600.0)

    timed = snb.Recipe(
        Tiny, size="width", sizes=[4], dataset=np.arange(90_000) % 5, batch_size=4,
        tokens_per_sample=8, optimizer={"lr": 1e-9}, warmup_steps=2, eval_tokens=64,
        device="cpu", step_fn=step, flops="6ND",
    )  # fmt: skip
    plan = plan_of(timed, [4e8], seeds=1)

    def note(event: object) -> None:
        if isinstance(event, StepLogged) and len(event.loss):
            # The newest of a piece was taken just before the piece was reported.
            clock.append((time.time() % 3600.0) - float(event.loss[-1]))

    with tempfile.TemporaryDirectory() as folder:
        sweep = snb.Sweep(timed, plan, store=Path(folder) / "runs.db", executor=executor)
        sweep.events.connect(note)
        sweep.start()
        threading.Timer(20.0, sweep.cancel).start()
        sweep.wait(60)
    late = sorted(1e3 * max(0.0, value) for value in clock[3:])
    p95 = late[int(0.95 * (len(late) - 1))]
    print(f"{len(late)} pieces of a curve, trainer to driver: median "
          f"{statistics.median(late):.1f} ms, p95 {p95:.1f} ms")  # fmt: skip


def simulate() -> None:
    """Play the messages of 1,000 tasks against the mailbox, the store and an actor."""
    rate = N_TASKS / FLUSH_SECONDS
    print(f"{N_TASKS} runs in training tell {rate:,.0f} messages a second, {POINTS} points each")
    mail = Mailbox()
    tokens, loss = np.arange(POINTS, dtype=np.int64), np.ones(POINTS, np.float32)
    for k in range(N_TASKS):
        mail.put(RunStarted(spec=SimpleNamespace(run_id=f"r{k}")))  # type: ignore[arg-type]
    began, n = time.perf_counter(), 20_000
    taken: list[object] = []
    for i in range(n):
        new = StepLogged(run_id=f"r{i % N_TASKS}", tokens=tokens + POINTS * (i // N_TASKS + 1),
                         loss=loss)  # fmt: skip
        mail.put(new)
        if i % 250 == 249:  # twenty takes a second
            taken += mail.take()
    report("host's mailbox", n / (time.perf_counter() - began), rate)
    with tempfile.TemporaryDirectory() as folder, snb.RunStore(Path(folder) / "runs.db") as store:
        began = time.perf_counter()
        for i in range(n):
            store.append(f"r{i % N_TASKS}", tokens + POINTS * (i // N_TASKS), loss)
        store.flush()
        report("driver's store", n / (time.perf_counter() - began), rate)
    answered = _answers()
    report("actor's answers", answered, rate)
    paced = gathering_seconds(N_TASKS)
    print(f"the host is the narrow place, so {N_TASKS} runs gather {paced:.1f} s before they tell:")
    report("actor's answers", answered, N_TASKS / paced)
    print(f"  {N_RUNS:,} runs of one minute then keep {N_TASKS:,} GPUs busy with "
          f"{N_TASKS / 60:.0f} starts a second")  # fmt: skip


def report(part: str, reached: float, wanted: float) -> None:
    print(f"  {part:<16} {reached:>9,.0f} a second: {reached / wanted:.1f} times what is asked")


def _answers() -> float:
    """Return how many messages a second one actor takes from many callers of this machine."""
    import ray

    from scaling_nb.executors import ray as cluster
    from scaling_nb.executors.ray_host import Host

    snb.RayExecutor()
    host = ray.remote(Host).options(num_cpus=0, max_concurrency=cluster.CONCURRENCY).remote()

    @ray.remote(num_cpus=0)
    def caller(host: object, seconds: float) -> int:
        piece = StepLogged(run_id="r", tokens=np.arange(POINTS), loss=np.ones(POINTS, np.float32))
        sent, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            # Many tasks wait for their answers at once.
            ray.get([host.report.remote(0, 0, k, [piece]) for k in range(50)])  # type: ignore[attr-defined]
            sent += 50
        return sent

    ray.get([caller.remote(host, 1.0) for _ in range(2)])
    seconds = 5.0
    return sum(ray.get([caller.remote(host, seconds) for _ in range(2)])) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queued", type=int, default=200)
    parser.add_argument("--address")
    parser.add_argument("--simulate", action="store_true")
    options = parser.parse_args()
    if options.simulate:
        simulate()
        return
    executor = snb.RayExecutor(options.address)
    overhead(options.queued, executor)
    latency(executor)


if __name__ == "__main__":
    main()
