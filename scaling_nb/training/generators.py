"""Random numbers that a run can repeat: torch's, numpy's and Python's global generators.

All threads share them. Whoever draws holds :data:`GLOBAL_GENERATOR`, seeds them or puts its own
states in, and puts back what was there.
"""

from __future__ import annotations

import json
import random
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Turns:
    """A lock that its waiters get in the order they came; its holder may take it again.

    An ordinary lock that is let go and taken again at once is never got by anybody else.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._owner: int | None = None
        self._depth = 0
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    @property
    def wanted(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    def acquire(self) -> None:
        """Wait for one's turn."""
        me = threading.get_ident()
        with self._guard:
            if self._owner in (me, None):
                self._owner = me
                self._depth += 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append((me, turn))
        try:
            turn.acquire()
        except BaseException:
            # Interrupted in a notebook: nobody may wait for one who has gone.
            with self._guard:
                still_waits = (me, turn) in self._waiting
                if still_waits:
                    self._waiting.remove((me, turn))
            if not still_waits:
                self.release()
            raise

    def release(self) -> None:
        """Let the next one in."""
        with self._guard:
            self._depth -= 1
            if self._depth:
                return
            self._owner = None
            if self._waiting:
                self._owner, turn = self._waiting.popleft()
                self._depth = 1
                turn.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


GLOBAL_GENERATOR = Turns()
"""Held while anything draws from the global generators."""

States = tuple[Tensor, Any, Any]


def seed_globals(seed: int) -> None:
    """Seed the generators for good, as in a process of one's own."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  user code may use the old generator


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed the generators inside; put them back after.

    Holds :data:`GLOBAL_GENERATOR`: without it, models built at once by several threads were
    initialised wrongly.
    """
    with GLOBAL_GENERATOR:
        outer, outer_devices = _states(), _device_states()
        try:
            seed_globals(seed)
            yield
        finally:
            _put(outer)
            _put_on_devices(outer_devices)


class OwnGenerators:
    """The generators of one run, or of one pass over its data, as if it were alone.

    Not thread-safe: between :meth:`enter` and :meth:`leave` its one thread holds
    :data:`GLOBAL_GENERATOR`. Putting the states in and out costs a fraction of a millisecond, so
    a run stays inside from step to step until somebody else wants to draw.

    Parameters
    ----------
    seed : int
    device : torch.device, optional
        A GPU, whose own generator is then one of them.
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        self._own: States = (
            torch.Generator().manual_seed(seed).get_state(),
            random.Random(seed).getstate(),
            np.random.RandomState(seed % 2**32).get_state(),
        )
        self._own_device: Tensor | None = None
        if self._device is not None:
            self._own_device = torch.Generator(self._device).manual_seed(seed).get_state()
        self._outer: States | None = None
        self._outer_device: Tensor | None = None

    def enter(self) -> None:
        """Put the own states in, when it is this one's turn."""
        if self._outer is not None:
            return
        GLOBAL_GENERATOR.acquire()
        self._outer = _states()
        _put(self._own)
        if self._device is not None and self._own_device is not None:
            self._outer_device = torch.cuda.get_rng_state(self._device)
            torch.cuda.set_rng_state(self._own_device, self._device)

    def leave(self) -> None:
        """Keep the own states, put back what was there, and let others draw."""
        if self._outer is None:
            return
        self._own = _states()
        _put(self._outer)
        if self._device is not None and self._outer_device is not None:
            self._own_device = torch.cuda.get_rng_state(self._device)
            torch.cuda.set_rng_state(self._outer_device, self._device)
        self._outer = None
        GLOBAL_GENERATOR.release()

    def let_others(self) -> None:
        """Leave if somebody waits to draw."""
        if GLOBAL_GENERATOR.wanted:
            self.leave()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be inside, at least until the end of the block."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def saved(self) -> tuple[Tensor, Tensor | None]:
        """Return the states as bytes, the device's apart, for :meth:`restore`."""
        self.leave()
        return pack_states(self._own), self._own_device

    def restore(self, host: Tensor, device: Tensor | None) -> None:
        """Go back to what :meth:`saved` returned."""
        self.leave()
        self._own = _unpack_states(host)
        if device is not None:
            self._own_device = device


def _states() -> States:
    return torch.random.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002


def _device_states() -> list[Tensor] | None:
    """Return the state of every GPU's generator; None where no GPU has been used yet."""
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.get_rng_state_all() if used else None


def _put_on_devices(states: list[Tensor] | None) -> None:
    """Undo what ``torch.manual_seed`` did to the GPUs' generators: it seeds them all."""
    if states is not None:
        torch.cuda.set_rng_state_all(states)
    elif torch.cuda.is_available():
        # Their first use would begin with the seed that was given last: that is the person's.
        torch.cuda.manual_seed_all(torch.initial_seed())


def _put(states: States) -> None:
    torch.random.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])  # noqa: NPY002


def host_generators() -> Tensor:
    """Return the states of the global generators as bytes."""
    return pack_states(_states())


def pack_states(states: States) -> Tensor:
    """Return states as bytes that the safe loader reads."""
    torch_state, python_state, (kind, keys, *rest) = states
    numpy_state = [kind, np.asarray(keys).tolist(), *rest]
    text = json.dumps([torch_state.tolist(), python_state, numpy_state])
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def _unpack_states(packed: Tensor) -> States:
    torch_state, (version, keys, gauss), numpy_state = json.loads(bytes(packed.numpy()))
    kind, numpy_keys, *rest = numpy_state
    return (
        torch.tensor(torch_state, dtype=torch.uint8),
        (version, tuple(keys), gauss),
        (kind, np.array(numpy_keys, np.uint32), *rest),
    )
