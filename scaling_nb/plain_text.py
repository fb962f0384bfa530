"""What IPython shows as text: in a terminal, and beside the HTML of a notebook."""

from __future__ import annotations

from typing import Any


class PlainText:
    """Shown by IPython as ``str()`` says, with its numbers and warnings, and not as ``repr()``."""

    __slots__ = ()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("..." if cycle else str(self))
