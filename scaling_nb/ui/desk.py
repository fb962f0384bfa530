"""Where a panel's state lies: one frozen snapshot, who is told of it, and what went wrong."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

from ..errors import ScalingError
from .snapshot import Entry, Snapshot
from .ticker import shared_ticker

_log = logging.getLogger(__name__)
_LOGGED = 200

Listener = Callable[[Snapshot], object]


class Desk:
    """The state, changed on the ticker's thread alone, and those who hear of it."""

    def __init__(self, state: Snapshot) -> None:
        self.state = state
        self.ticker = shared_ticker()
        self._listeners: list[Listener] = []

    def attach(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every new snapshot, and now; returns a function that ends it."""

        def begin() -> None:
            self._listeners.append(listener)
            self._tell(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        self.ticker.call(begin)
        return lambda: self.ticker.call(end)

    def order(self, act: Callable[[], object], *, asked: bool = True) -> None:
        """Carry an order out and show what came of it; returns at once.

        Parameters
        ----------
        asked : bool
            Whether a person asked for it: what was refused before is then forgotten.
        """

        def carry_out() -> None:
            if asked and self.state.refusal:
                self.put(refusal="")
            try:
                act()
            except ScalingError as error:
                self.refuse(str(error))
            except Exception as error:
                # Whatever an executor or a disk raises: a click without an answer is worse.
                _log.exception("the panel could not carry out what was asked")
                self.refuse(f"{type(error).__name__}: {error}")
            self.show()

        self.ticker.call(carry_out)

    def put(self, **changes: Any) -> None:
        """Change fields of the state."""
        self.state = dataclasses.replace(self.state, **changes)

    def note(self, text: str) -> None:
        """Write a line into the event log."""
        entry = Entry(clock=time.strftime("%H:%M:%S"), text=text)
        self.put(log=(*self.state.log[-_LOGGED:], entry))

    def refuse(self, text: str) -> None:
        """Say beside the buttons, and in the log, why something was not done."""
        self.put(refusal=text)
        self.note(text)

    def show(self) -> None:
        """Tell everybody how things stand."""
        sweep = self.state.sweep
        if sweep is not None:
            self.put(status=sweep.status())
        for listener in list(self._listeners):
            self._tell(listener)

    def _tell(self, listener: Listener) -> None:
        try:
            listener(self.state)
        except Exception:
            # One panel that fails must not keep the others from what happens.
            _log.exception("a panel could not show the present state; the others go on")
