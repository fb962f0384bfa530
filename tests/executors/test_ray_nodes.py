"""The cluster's nodes, asked of a head that may never answer."""

from __future__ import annotations

import threading
import time

import pytest

from scaling_nb.executors import ray_nodes
from scaling_nb.executors.ray_nodes import Roll, in_words, room

ray = pytest.importorskip("ray")
NODES = [
    {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 2.0}},
    {"Alive": True, "Resources": {"CPU": 16.0}},
    {"Alive": False, "Resources": {"CPU": 64.0}},
]


def test_a_head_that_is_lost_keeps_nobody_waiting(monkeypatch):
    answer, asked = threading.Event(), []

    def nodes():
        asked.append(1)
        answer.wait(30)
        return NODES

    monkeypatch.setattr(ray, "nodes", nodes)
    roll, began = Roll(), time.monotonic()
    assert roll.nodes(patience=0.1) is None
    for _ in range(50):
        assert roll.nodes(patience=0.1) is None  # that long was waited for this answer already
    assert time.monotonic() - began < 5
    assert len(asked) == 1
    answer.set()
    found = roll.nodes(patience=30)  # it came back
    assert found is not None
    assert in_words(found) == "2 nodes, 32 CPUs, 2 GPUs"


def test_the_head_is_asked_now_and_then(monkeypatch):
    asked = []
    monkeypatch.setattr(ray, "nodes", lambda: asked.append(1) or NODES)
    roll = Roll()
    assert roll.nodes() == roll.nodes() == NODES[:2]
    assert len(asked) == 1
    monkeypatch.setattr(ray_nodes, "LOOK_SECONDS", 0.0)
    roll.nodes()
    assert len(asked) == 2


def test_a_question_that_fails_is_no_answer(monkeypatch):
    def nodes():
        raise ConnectionError("disconnected")

    monkeypatch.setattr(ray, "nodes", nodes)
    assert Roll().nodes() is None


def test_room_is_counted_node_by_node():
    assert room(NODES[:1], {"CPU": 1, "GPU": 1, "a100": 0}) == 2
    assert room(NODES[:2], {"CPU": 10}) == 2
    assert room(NODES[1:2], {"CPU": 1, "GPU": 1}) == 0
    assert room([{"Resources": {"CPU": 3.0}}], {"CPU": 2}) == 1
