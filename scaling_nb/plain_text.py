"""What IPython shows as text: in a terminal, and beside the HTML of a notebook."""

from __future__ import annotations

from typing import Any


def plain_text(self: Any, printer: Any, cycle: bool) -> None:
    """Show what ``str()`` says, with its numbers and warnings, and not ``repr()``.

    For a class to have as its ``_repr_pretty_``; inherited it would stand behind ``__repr__``.
    """
    printer.text("..." if cycle else str(self))
