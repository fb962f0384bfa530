"""What every panel is: a widget that follows a board, and shows itself where it stands alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets as w

from .comms import contained, keep_listening
from .controls import CSS, warning_html, words

if TYPE_CHECKING:
    from .board import Board
    from .snapshot import Snapshot


class Reach(anywidget.AnyWidget):
    """What ipywidgets leaves out for keyboards and screen readers, in the panel it stands in.

    Headings of foldable parts can be reached and opened by key, and arrows move the control that
    has the focus.
    """

    _esm = Path(__file__).with_name("reach.js")

    def __init__(self) -> None:
        super().__init__()
        keep_listening(self)


class Panel:
    """One part of the flow: ``widget``, ``update(snapshot)``, ``close()``.

    A panel is shown as it is: ``PlanPanel(recipe)`` as a cell's last line.
    """

    board: Board
    widget: w.Widget
    _detach: Any
    _frame: w.Box | None = None
    _unframe: Any = None
    says_refusals = False

    def update(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop following the board."""
        self._detach()
        if self._frame is not None:
            self._unframe()
            for part in list(contained(self._frame)):
                part.close()

    def frame(self) -> w.Box:
        """Return the panel by itself: with its style, and what was refused."""
        if self._frame is None:
            refused = words()
            parts = [] if self.says_refusals else [refused]
            self._frame = framed(self.widget, *parts)

            def tell(snapshot: Snapshot) -> None:
                said = warning_html(snapshot.refusal) if snapshot.refusal else ""
                if refused.value != said:
                    refused.value = said

            self._unframe = self.board.attach(tell)
        return self._frame

    def _ipython_display_(self) -> None:
        show(self.frame(), f"scaling_nb {type(self).__name__}")


def framed(*parts: w.Widget) -> w.VBox:
    """Return parts as one panel: style, names and keys included."""
    box = w.VBox([words(f"<style>{CSS}</style>"), *parts, Reach()])
    box.add_class("snb-panel")
    keep_listening(box)
    return box


def show(widget: w.Widget, text: str) -> None:
    """Display a widget, with a line for readers that have none."""
    from IPython.display import display

    bundle: Any = widget._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    out: Any = display
    out({**(bundle or {}), "text/plain": text}, raw=True)
