"""A cluster: each job is a Ray task with its resources, wherever the cluster has them.

The notebook only attends: a host on the head node submits the tasks and hears them (see
``ray_host``), so that training goes on when the notebook's kernel does not.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import SweepError
from ..events import Noted, RunFailed, RunFinished
from ..records import content_hash
from ..training.control import Control, Orders, Stopped
from ..training.recipe import Recipe
from .base import Checkpointing, Emit, Job, JobQueue
from .payload import pickle_recipe
from .ray_host import Host, Terms
from .ray_nodes import HEAD, Roll, in_words, room
from .ray_task import get_ready, import_path

NAMESPACE = "scaling_nb"
CONCURRENCY = 20_000
"""Questions that the host may have open at once: two for each run in training."""

AHEAD = 16
"""Jobs that wait on the cluster for a free place: with fewer, short ones would wait for us."""

MOST_HOSTS = 5
HEAD_SECONDS = 60.0
"""How long the head node may be silent, as one that starts anew, until the sweep ends."""

WAITING_SECONDS = 30.0
FOREVER = 10**8


class RayExecutor:
    """Trains one job per Ray task, on as many machines as the cluster has.

    Parameters
    ----------
    address : str, optional
        Of the cluster, such as ``"10.0.0.1:6379"`` or ``"auto"``. None: the one that
        ``RAY_ADDRESS`` or this machine names, else one that is started here.
    num_cpus, num_gpus : float, optional
        What each run takes. None: one CPU, and a GPU for each of ``recipe.devices`` where the
        recipe's device is one.
    resources : mapping, optional
        Custom resources of a run, such as ``{"a100": 1}``.
    storage : str, optional
        Where checkpoints go: a folder that all machines share, or an fsspec URL such as
        ``"s3://bucket/sweeps"``. None: beside the store, which must then be on shared storage for
        a run to go on where a machine was lost, and not to begin anew.

    Raises
    ------
    SweepError
        Ray is not installed, or there is no cluster at that address.
    """

    name = "ray"
    worker_bytes = 0
    shares_interpreter = False
    remote = True

    def __init__(
        self,
        address: str | None = None,
        *,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        resources: Mapping[str, float] | None = None,
        storage: str | None = None,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise SweepError(
                "executor=\"ray\" needs Ray, which is not installed. pip install 'scaling_nb[ray]'"
            )
        self.num_cpus, self.num_gpus = num_cpus, num_gpus
        self.resources, self.storage = dict(resources or {}), storage
        self._slots, self._roll = 1, Roll()
        _connect(address)

    def needs(self, recipe: Recipe) -> dict[str, Any]:
        """Return what each run takes, as Ray's options."""
        gpus = self.num_gpus
        if gpus is None:
            gpus = recipe.devices if recipe.device.type == "cuda" else 0
        cpus = self.num_cpus
        if cpus is None:
            cpus = 1 if gpus else recipe.devices
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus}
        return options | ({"resources": self.resources} if self.resources else {})

    def workers(self, recipe: Recipe) -> int:
        """Return how many runs the cluster has room for, and at least 1: more may join."""
        return max(1, self.slots(recipe))

    def slots(self, recipe: Recipe) -> int:
        """Return how many runs the cluster has room for, as far as its head has told."""
        nodes = self._roll.nodes()
        if nodes is not None:
            needs = self.needs(recipe)
            wanted = {"CPU": needs["num_cpus"], "GPU": needs["num_gpus"], **self.resources}
            self._slots = room(nodes, wanted)
        return self._slots

    def places(self) -> str:
        """Return the cluster in words: its nodes, CPUs and GPUs."""
        nodes = self._roll.nodes()
        return "a cluster whose head does not answer" if nodes is None else in_words(nodes)

    def pids(self) -> list[int]:
        """Return none: the workers live on other machines, or in Ray's processes."""
        return []

    def run(
        self,
        recipe: Recipe,
        jobs: JobQueue,
        *,
        emit: Emit,
        control: Control,
        checkpointing: Checkpointing | None = None,
    ) -> None:
        """Train until the queue is empty; raise what a worker or the sink raised.

        A host that is left from an earlier driver of the same sweep is found again, with the runs
        it has trained meanwhile and those it still trains.
        """
        if not len(jobs):
            return
        if checkpointing is not None and self.storage is not None:
            checkpointing = checkpointing.at(self.storage)
        place = str(checkpointing.place if checkpointing else id(jobs))
        attendance = _Attendance(
            f"sweep-{content_hash([place, recipe.recipe_id])}",
            Terms(
                resources=self.needs(recipe),
                device="cuda" if self.needs(recipe)["num_gpus"] else recipe.device.type,
                batch_size=recipe.batch_size,
                recipe_id=recipe.recipe_id,
                checkpointing=checkpointing,
                path=import_path(),
            ),
            emit,
            control,
            self._roll,
        )
        attendance.work_off(recipe, jobs, lambda: self.slots(recipe))


class _Attendance:
    """A driver's side of one sweep on the cluster."""

    def __init__(self, name: str, terms: Terms, emit: Emit, control: Control, roll: Roll) -> None:
        self.name, self.terms, self.emit, self.control = name, terms, emit, control
        self._roll = roll
        self._host: Any = None
        self._readying: list[Any] = []
        self._driver = 0
        self._in_hand: set[str] = set()
        self._open: list[tuple[Job, set[str]]] = []
        self._orders_sent = 0
        self._sending = threading.Lock()
        self._waited = time.monotonic()

    def work_off(self, recipe: Recipe, jobs: JobQueue, slots: Callable[[], int]) -> None:
        """Have the queue's jobs trained; `slots` says how many runs the cluster has room for."""
        import ray

        payload = _payload(recipe)
        hosts = 0
        stop_listening = None
        try:
            while len(jobs) or self._open:
                if self._host is None:
                    hosts += 1
                    self._attach(payload, jobs, slots())
                    stop_listening = self.control.listen(self._order)
                try:
                    self._submit(jobs, slots())
                    self._hear(jobs)
                except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
                    if hosts >= MOST_HOSTS:
                        raise SweepError(
                            f"the cluster lost the sweep's host {hosts} times ({error}). Look at "
                            "its head node, then start() again."
                        ) from error
                    waiting = tuple(run_id for _, left in self._open for run_id in left)
                    self.emit(
                        Noted(
                            message="the cluster's host was lost; runs go on from saved",
                            waiting=waiting,
                        )
                    )
                    if stop_listening is not None:
                        stop_listening()
                    self._lose(jobs)
                if self.control.left:
                    raise Stopped("left: the cluster goes on")
            self.control.check()
        except BaseException:
            if not self.control.left:
                self._end()
            raise
        else:
            self._end()
        finally:
            if stop_listening is not None:
                stop_listening()

    def _attach(self, payload: tuple[bytes, list[Any]], jobs: JobQueue, slots: int) -> None:
        import ray

        head = self._head()
        try:
            self._host = ray.get_actor(self.name, namespace=NAMESPACE)
        except ValueError:
            # Workers import torch while the host starts.
            ready = ray.remote(get_ready).options(max_retries=0, **self.terms.resources)
            self._readying = [ready.remote() for _ in range(min(slots, len(jobs)))]
            self._host = _start_host(self.name, head)
        wanted = [spec.run_id for job in jobs.waiting() for spec in job.specs]
        self._driver, in_hand = ray.get(self._host.attach.remote(self.terms, payload, wanted))
        self._in_hand = set(in_hand)

    def _head(self) -> str | None:
        nodes = self._roll.nodes(patience=HEAD_SECONDS)
        if nodes is None:
            raise SweepError(
                f"the cluster's head node has not answered for {HEAD_SECONDS:g} s. Start it, or "
                "another cluster, and start() again."
            )
        return next((node["NodeID"] for node in nodes if HEAD in node["Resources"]), None)

    def _submit(self, jobs: JobQueue, workers: int) -> None:
        """Give the host as many jobs as the cluster trains, and some more to go on with."""
        if self.control.orders.cancelled:
            return
        ahead = workers + max(AHEAD, workers // 2)
        new = []
        while len(self._open) < ahead and (job := jobs.take(self.control, wait=False)) is not None:
            specs = tuple(s for s in job.specs if s.run_id not in self._in_hand)
            self._open.append((job, {spec.run_id for spec in job.specs}))
            if specs:
                new.append(Job(specs=specs, bytes=job.bytes, more_follow=job.more_follow))
        if new:
            self._host.submit.remote(new)
        if not workers and time.monotonic() - self._waited > WAITING_SECONDS:
            self._waited = time.monotonic()
            needs = ", ".join(f"{key}={n}" for key, n in self.terms.resources.items())
            self.emit(Noted(message=f"waiting: no machine of the cluster has {needs}"))

    def _hear(self, jobs: JobQueue) -> None:
        import ray

        try:
            events = ray.get(self._host.take.remote(self._driver), timeout=HEAD_SECONDS)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, SweepError):
                raise error.cause from None  # it says all; how it travelled says nothing
            raise
        if events is None:
            self._host = None  # it serves the other kernel now, and must not end with this one
            raise SweepError("another kernel attends to this sweep now; it is read-only here.")
        for event in events:
            self.emit(event)
            if isinstance(event, RunFinished | RunFailed):
                self._in_hand.discard(event.run.run_id)
                for _, left in self._open:
                    left.discard(event.run.run_id)
        done = [job for job, left in self._open if not left]
        self._open = [(job, left) for job, left in self._open if left]
        for job in done:
            jobs.done(job)
        if self.control.orders.cancelled and not self._open:
            raise Stopped("stopped by the user")

    def _lose(self, jobs: JobQueue) -> None:
        """Put back what was in hand: a new host trains it, from its checkpoints."""
        for job, left in reversed(self._open):
            ended = {spec.run_id for spec in job.specs} - left
            jobs.done(job, job.without(ended))
        self._open, self._host = [], None

    def _order(self, orders: Orders) -> None:
        with self._sending:
            self._orders_sent += 1
            if self._host is not None:
                self._host.order.remote(self._driver, self._orders_sent, orders)

    def _end(self) -> None:
        import ray

        if self._host is not None and ray.is_initialized():
            for ref in self._readying:
                ray.cancel(ref, force=True)
            ray.kill(self._host)
            self._host = None


def _payload(recipe: Recipe) -> tuple[bytes, list[Any]]:
    import numpy as np

    buffers: list[Any] = []
    pickled = pickle_recipe(recipe, lambda b: buffers.append(np.frombuffer(b.raw(), np.uint8)))
    return pickled, buffers


def _outlive_the_head() -> None:
    """Have Ray not end this process, the kernel, a minute after the head is lost.

    It reads this as it is first imported.
    """
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(FOREVER))


def _connect(address: str | None) -> None:
    import logging

    _outlive_the_head()
    import ray

    if ray.is_initialized():
        return
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            logging_level=logging.WARNING,
            include_dashboard=None if address else False,
        )
    except Exception as error:  # Ray has no class of its own for a cluster that does not come
        raise SweepError(
            f"there is no Ray cluster at {address or 'hand'}: {error}. Start one with `ray start "
            "--head`, or give RayExecutor(address=…)."
        ) from error


def _start_host(name: str, head: str | None) -> Any:
    """Return the host of that name, pinned to the head node; another's, if that came first."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(head, soft=False) if head else "DEFAULT"
    return (
        ray.remote(Host)
        .options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=CONCURRENCY,
            scheduling_strategy=strategy,
        )
        .remote()
    )
