"""What a cluster consists of, asked so that nobody waits for a head node that is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

HEAD = "node:__internal_head__"
LOOK_SECONDS = 2.0
PATIENCE = 1.0

Node = Mapping[str, Any]


class Roll:
    """The cluster's nodes, as its head told last. Thread-safe.

    Ray's own question never returns where the head is lost: it is asked on a thread of its own.
    """

    def __init__(self) -> None:
        self._nodes: Sequence[Node] = ()
        self._asked = self._told = -LOOK_SECONDS
        self._asking = False
        self._changed = threading.Condition()

    def nodes(self, patience: float = PATIENCE) -> Sequence[Node] | None:
        """Return the nodes that are alive, at most `LOOK_SECONDS` old.

        None: the head has not answered for `patience` seconds, those included in which others
        have waited for the same answer.
        """
        with self._changed:
            now = time.monotonic()
            if now - self._told < LOOK_SECONDS:
                return self._nodes
            if not self._asking:
                self._asking, self._asked = True, now
                threading.Thread(target=self._ask, name="nodes", daemon=True).start()
            left = self._asked + patience - now
            answered = self._changed.wait_for(lambda: not self._asking, max(0.0, left))
            return self._nodes if answered and self._told >= self._asked else None

    def _ask(self) -> None:
        import ray

        try:
            nodes = [node for node in ray.nodes() if node["Alive"]]
        except Exception:
            nodes = None  # disconnected, which the executor says itself
        with self._changed:
            self._asking = False
            if nodes is not None:
                self._nodes, self._told = nodes, time.monotonic()
            self._changed.notify_all()


def room(nodes: Sequence[Node], wanted: Mapping[str, float]) -> int:
    """Return how many runs that take `wanted` these nodes have room for, each on one node."""
    return sum(_fits(node["Resources"], wanted) for node in nodes)


def _fits(has: Mapping[str, float], wanted: Mapping[str, float]) -> int:
    return min((int(has.get(key, 0) / n) for key, n in wanted.items() if n), default=1)


def in_words(nodes: Sequence[Node]) -> str:
    """Return nodes as a phrase, such as ``3 nodes, 2 CPUs``."""
    total = {key: sum(n["Resources"].get(key, 0) for n in nodes) for key in ("CPU", "GPU")}
    parts = [f"{len(nodes)} node{'s' * (len(nodes) != 1)}"]
    parts += [f"{total[key]:g} {key}{'s' * (total[key] != 1)}" for key in total if total[key]]
    return ", ".join(parts)
