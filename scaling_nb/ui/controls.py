"""The panel's look, and labelled controls that teach the field's words."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets as w

from .slider import Slider

CSS = """
.snb-panel { color: var(--jp-ui-font-color1); font-family: var(--jp-ui-font-family);
  font-size: var(--jp-ui-font-size1, 13px); border: 1px solid var(--jp-border-color2);
  border-radius: 4px; padding: 0 12px 10px; min-width: 0; overflow: hidden; }
.snb-panel .snb-section { border-top: 1px solid var(--jp-border-color2); padding: 8px 0 10px; }
.snb-panel .snb-head { font-size: 1.1em; font-weight: 600; padding: 8px 0; }
.snb-panel .snb-title { font-weight: 600; letter-spacing: .04em; margin-right: .6em; }
.snb-panel .widget-html-content { line-height: 1.45; color: var(--jp-ui-font-color1); }
.snb-panel .snb-row { display: flex; flex-flow: row wrap; gap: 2px 14px; align-items: center; }
.snb-panel .snb-charts { display: flex; flex-flow: row wrap; gap: 8px; }
.snb-panel .snb-charts { align-items: flex-end; }
.snb-panel .jupyter-widget-Collapse-header { padding: 3px 8px; border: 0; background: none; }
.snb-panel .jupyter-widget-Collapse-contents { padding: 4px 8px; border: 0;
  background: none; }
.snb-panel .snb-tip { text-decoration: underline dotted; cursor: help; }
.snb-panel .snb-charts > * { flex: 1 1 340px; min-width: 300px; max-width: 100%; }
.snb-panel .snb-two > * { flex: 1 1 460px; }
.snb-panel .snb-warn { border-left: 4px solid #D55E00; padding: 1px 10px; margin: 3px 0;
  max-width: 100ch; }
.snb-panel .snb-muted { color: var(--jp-ui-font-color2); }
.snb-panel .snb-answer { font-size: 1.15em; border-left: 4px solid #0072B2; padding: 4px 12px;
  min-height: 3.2em; }
.snb-panel .snb-line, .snb-panel .snb-hint { min-height: 1.5em; }
.snb-panel .snb-hint { color: var(--jp-ui-font-color2); font-size: .92em; }
.snb-panel sup { line-height: 0; }
/* While runs train, sentences come and go: what is below must not move with them. */
.snb-panel .snb-notes.snb-alive { height: 7em; overflow-y: auto; }
.snb-panel .jupyter-widget-Collapse-header:focus-visible { outline: 2px solid #0072B2; }
.snb-panel .snb-log { height: 7.5em; overflow-y: auto; font-family: var(--jp-code-font-family);
  font-size: .92em; border: 1px solid var(--jp-border-color2); padding: 2px 8px; }
.snb-panel table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.snb-panel th, .snb-panel td { padding: 1px 9px; text-align: right; white-space: nowrap; }
.snb-panel th { border-bottom: 1px solid var(--jp-border-color1); font-weight: 600; }
.snb-panel .snb-scroll { overflow: auto; max-height: 230px; scrollbar-width: thin;
  border: 1px solid var(--jp-border-color2); }
.snb-panel .snb-code textarea { font-family: var(--jp-code-font-family); height: 13em;
  white-space: pre; }
.snb-panel :focus-visible { outline: 2px solid #0072B2; outline-offset: 1px; }
.snb-panel .widget-label { color: var(--jp-ui-font-color1); }
.snb-slider { display: flex; align-items: center; gap: 8px; height: 28px; margin: 2px; }
.snb-slider label { white-space: nowrap; display: flex; align-items: center; gap: 8px; flex: 1;
  min-width: 0; }
.snb-slider input { flex: 1; min-width: 60px; accent-color: #0072B2; cursor: pointer; }
.snb-slider output { min-width: 3.4em; font-variant-numeric: tabular-nums; }
.snb-slider output:empty { display: none; }
"""

Change = Callable[[Any], object]
_STYLE = {"description_width": "initial"}


def section(*children: w.Widget) -> w.VBox:
    """Return a part of the panel with a line above it."""
    box = w.VBox(children)
    box.add_class("snb-section")
    return box


def row(*children: w.Widget, kind: str = "snb-row") -> w.Box:
    """Return controls side by side that wrap where the page is narrow."""
    box = w.Box(children)
    for name in kind.split():
        box.add_class(name)
    return box


def words(html: str = "", kind: str = "") -> w.HTML:
    """Return text; `html` is trusted, so escape what comes from outside."""
    part = w.HTML(html)
    if kind:
        part.add_class(kind)
    return part


def title(text: str) -> w.HTML:
    """Return a section's name."""
    return words(f'<span class="snb-title" role="heading" aria-level="3">{escape(text)}</span>')


def button(
    text: str, act: Callable[[], object], tip: str, *, kind: str = "", icon: str = ""
) -> w.Button:
    """Return a button as wide as its words."""
    made = w.Button(
        description=text,
        tooltip=tip,
        button_style=kind,
        icon=icon,
        layout={"width": "auto", "flex": "none"},
    )
    made.on_click(lambda _: act())
    return made


def labelled(control: w.Widget, name: str, tip: str, width: str = "auto") -> Any:
    """Give a control its label and its explanation."""
    control.description, control.tooltip = name, tip
    if control.has_trait("style"):
        control.style = _STYLE
    control.layout.width = width
    control.layout.flex = "none"
    return control


class Mirror:
    """A control that shows the board's value and reports only what a person changes.

    While a person moves it, it is left alone: the board's answer to the last but one position
    would otherwise pull a slider back from under the hand.
    """

    HELD = 0.6

    def __init__(self, control: Any, react: Change) -> None:
        self.control, self._react = control, react
        self._shown = control.value
        self._moved = 0.0
        control.observe(self._changed, names="value")

    def show(self, value: Any) -> None:
        """Show the board's value."""
        if time.monotonic() - self._moved < self.HELD or _same(self.control.value, value):
            return
        self._shown = value
        if isinstance(self.control, Slider):
            self.control.put(value)
            return
        if isinstance(value, int) and hasattr(self.control, "max"):
            # It would cut the value to its range, and another number than the board's be seen.
            self.control.max = max(self.control.max, value)
        self.control.value = value

    def _changed(self, change: Any) -> None:
        new = change["new"]
        if _same(new, self._shown):
            return
        self._shown = new
        self._moved = time.monotonic()
        self._react(new)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9)
    return bool(a == b)


def warning_html(text: str) -> str:
    """Return a sentence that stands out."""
    return f'<div class="snb-warn">⚠ {escape(text)}</div>'
