"""The line that says what happens: progress to see, sentences to hear."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

from .comms import keep_listening


class StatusLine(anywidget.AnyWidget):
    """Progress, a line of text, and a polite live region for screen readers."""

    _esm = Path(__file__).with_suffix(".js")
    done = traitlets.Int(0).tag(sync=True)
    total = traitlets.Int(0).tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    said = traitlets.Unicode("").tag(sync=True)

    def __init__(self) -> None:
        super().__init__()
        keep_listening(self)
