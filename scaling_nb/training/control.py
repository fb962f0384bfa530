"""What a person asks of training from any thread: pause, resume, cancel, skip one run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import ScalingError


class Stopped(ScalingError):
    """The sweep was cancelled: the run ended between two steps."""


class Released(ScalingError):
    """The job was saved between two steps and gives its device up; it goes on from there later."""


class RunSkipped(ScalingError):
    """The run in training was skipped: it ended between two steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What is asked at one moment; frozen, so that it can be sent to another process.

    Attributes
    ----------
    paused, cancelled : bool
    skipped : frozenset of run_id
    """

    paused: bool = False
    cancelled: bool = False
    skipped: frozenset[str] = frozenset()


NO_ORDERS = Orders()


class Control:
    """The orders in force. Thread-safe.

    A worker reads :attr:`orders` before every step, one attribute, and obeys what has changed.

    Attributes
    ----------
    orders : Orders
    left : bool
        Nobody here attends to training any more; see :meth:`leave`.
    """

    def __init__(self) -> None:
        self.orders = NO_ORDERS
        self.left = False
        self._changed = threading.Condition()
        self._listeners: tuple[Callable[[Orders], None], ...] = ()

    def pause(self) -> None:
        """Hold every run between two steps."""
        self._give(lambda orders: replace(orders, paused=True))

    def resume(self) -> None:
        """Let every run go on."""
        self._give(lambda orders: replace(orders, paused=False))

    def cancel(self) -> None:
        """End every run between two steps, paused ones too."""
        self._give(lambda orders: replace(orders, cancelled=True))

    def leave(self) -> None:
        """Attend to training no longer; what trains on other machines goes on."""
        self.left = True

    def skip(self, run_id: str) -> None:
        """End this run between two steps, or never start it."""
        self._give(lambda orders: replace(orders, skipped=orders.skipped | {run_id}))

    def unskip(self, run_id: str) -> None:
        """Take back :meth:`skip`, for a run that has not been left out yet."""
        self._give(lambda orders: replace(orders, skipped=orders.skipped - {run_id}))

    def put(self, orders: Orders) -> None:
        """Replace all orders: how they arrive in a worker process."""
        self._give(lambda _: orders)

    def _give(self, change: Callable[[Orders], Orders]) -> None:
        with self._changed:
            self.orders = change(self.orders)
            self._changed.notify_all()
            for listener in self._listeners:
                listener(self.orders)

    def listen(self, listener: Callable[[Orders], None]) -> Callable[[], None]:
        """Call `listener` with the orders now and whenever they change; returns what ends that."""
        with self._changed:
            self._listeners = (*self._listeners, listener)
            listener(self.orders)

        def end() -> None:
            with self._changed:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return end

    def refresh(self) -> None:
        """Take in what is ordered elsewhere, once before every step; here all is known."""

    def check(self, run_id: str = "") -> None:
        """Raise `Stopped` or `RunSkipped` where that is asked for."""
        orders = self.orders
        if orders.cancelled:
            raise Stopped("stopped by the user")
        if run_id in orders.skipped:
            raise RunSkipped("skipped by the user")

    def hold(self, run_id: str = "") -> None:
        """Wait while paused; raise as :meth:`check` does."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    not self.orders.paused or self.orders.cancelled or run_id in self.orders.skipped
                )
            )
        self.check(run_id)


class ReleasingControl(Control):
    """Where a pause gives the device up: the job is saved, ends, and goes on elsewhere later."""

    def hold(self, run_id: str = "") -> None:
        """Raise `Released` while paused, `Stopped` or `RunSkipped` as :meth:`check` does."""
        self.check(run_id)
        if self.orders.paused:
            raise Released("paused: saved, and the device is free")
