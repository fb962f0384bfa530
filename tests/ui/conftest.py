"""Widgets without a page: what they would send is kept, and what a page would say can be said."""

from __future__ import annotations

import time
from typing import Any

import comm
import numpy as np
import pytest
from comm.base_comm import BaseComm

import scaling_nb as snb
from scaling_nb.simulation import IsoFlopDesign
from scaling_nb.ui.ticker import shared_ticker


class RecordingComm(BaseComm):
    """Keeps every message instead of sending it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []
        super().__init__(*args, **kwargs)

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        self.sent.append((data or {}, [bytes(b) for b in buffers or []]))

    def custom(self, kind: str) -> list[tuple[dict[str, Any], list[bytes]]]:
        """Return the widget's own messages of one kind, with their buffers."""
        return [
            (data["content"], buffers)
            for data, buffers in self.sent
            if data.get("method") == "custom" and data["content"].get("kind") == kind
        ]


@pytest.fixture(autouse=True)
def page(monkeypatch):
    """Let every widget talk to a recording comm."""
    monkeypatch.setattr(comm, "create_comm", RecordingComm)


@pytest.fixture
def settle():
    """Return a function that waits until the panel has done what it was asked."""

    def wait(condition=lambda: True, timeout=30.0):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert shared_ticker().settle(timeout)
            if condition():
                return
            time.sleep(0.01)
        raise AssertionError("the panel did not get there in time")

    return wait


@pytest.fixture
def table():
    """24 runs of a known law, at 4 budgets."""
    law = snb.published["besiroglu_2024"]
    design = IsoFlopDesign(budgets=(1e17, 3e17, 1e18, 3e18))
    return snb.simulate(law, design, noise=0.003)


def says(widget, **content):
    """Let the page say something to a widget."""
    widget._handle_custom_msg(content, [])


@pytest.fixture
def say():
    return says


@pytest.fixture
def rng():
    return np.random.default_rng(0)
