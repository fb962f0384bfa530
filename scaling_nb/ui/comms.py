"""Keep widgets within reach of their page when that page is loaded anew.

ipykernel 7 sends what a page tells a widget to the subshell that was the parent of the widget's
*last message*, whatever subshell the page itself names. A reloaded page has closed the old one's
subshells, yet a thread that publishes still carries the old parent: everything the new page says
is then dropped without a word, and a chart that waits for its snapshot is lost. So our widgets
are addressed as the page addresses them.
"""

from __future__ import annotations

from collections.abc import Iterator

from ipywidgets import Widget


def keep_listening(widget: Widget) -> None:
    """Deliver messages to `widget`, and to all it contains, where the page sends them."""
    for part in contained(widget):
        comm = part.comm
        if comm is not None and getattr(comm, "_reply_subshell_for", None) is not None:
            comm._reply_subshell_for = None


def contained(widget: Widget) -> Iterator[Widget]:
    """Yield a widget and everything below it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from contained(child)
