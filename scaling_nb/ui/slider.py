"""A slider that says only what a person did.

ipywidgets' sliders say back whatever they are given, moved to their grid and cut to the range they
had before; what comes back cannot be told from a choice, and has replaced one.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import anywidget
import traitlets


class Slider(anywidget.AnyWidget):
    """A number between two ends, on a linear or a logarithmic scale.

    Attributes
    ----------
    value : float
    min, max, step : float
        In decades where `decades`, else in units of `value`.
    decades : bool
        Whether the scale is logarithmic.
    digits : int
        Digits shown beside it: significant where `decades`, else decimals; 0: no number.
    around : float
        Where the range does not hold a value that is put, and at first: how many decades there
        are on each side of it; 0: the range grows instead.
    """

    _esm = Path(__file__).with_suffix(".js")
    value = traitlets.Float().tag(sync=True)
    min = traitlets.Float().tag(sync=True)
    max = traitlets.Float().tag(sync=True)
    step = traitlets.Float().tag(sync=True)
    decades = traitlets.Bool(False).tag(sync=True)
    digits = traitlets.Int(0).tag(sync=True)
    description = traitlets.Unicode("").tag(sync=True)
    tooltip = traitlets.Unicode("").tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)

    def __init__(self, *, around: float = 0.0, **traits: Any) -> None:
        super().__init__(**traits)
        self.around = around
        self._centred = not around

    def put(self, value: float) -> None:
        """Show a value, with a range that holds it."""
        with self.hold_sync():
            self._make_room(math.log10(value) if self.decades else value)
            self.value = value

    def bound(self, low: float, high: float) -> None:
        """Move the ends, given as `min` and `max` are; a value beyond them moves with them."""
        at = math.log10(self.value) if self.decades else self.value
        inside = min(max(at, low), high)
        with self.hold_sync():
            self.min, self.max = low, high
            if inside != at:
                self.value = 10**inside if self.decades else inside

    def _make_room(self, at: float) -> None:
        margin = 0.1 if self.decades else 0.0
        if self._centred and self.min + margin <= at <= self.max - margin:
            return
        self._centred = True
        if self.around:
            self.min, self.max = math.floor(at - self.around), math.ceil(at + self.around)
        elif at > self.max:
            self.max = math.ceil(at) if self.decades or at <= 0 else 1.5 * at
        else:
            self.min = math.floor(at) if self.decades or at <= 0 else 0.5 * at
