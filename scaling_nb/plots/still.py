"""The IsoFLOP figure as a small SVG: for a saved notebook, where no browser has drawn anything."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..fit import IsoFlopFit
from ..records import loss_unit
from .isoflop import IsoFlopCurve, isoflop_curves
from .style import COLOURS, INK, count, log_ticks, marker

_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 600, 34, 330
_FONT = "font-family='system-ui, sans-serif' font-size='12'"


class _Scale:
    """Data to pixels: N on a logarithmic axis, loss on a linear one."""

    def __init__(self, n_params: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        ends = np.log([n_params.min(), n_params.max()])
        margin = 0.04 * (ends[1] - ends[0]) or 0.1
        self.left, self.right = ends[0] - margin, ends[1] + margin
        margin = 0.06 * (loss.max() - loss.min()) or 0.1
        self.low, self.high = loss.min() - margin, loss.max() + margin

    def x(self, n_params: ArrayLike) -> NDArray[np.float64]:
        share = (np.log(n_params) - self.left) / (self.right - self.left)
        return np.asarray(_LEFT + share * (_RIGHT - _LEFT), float)

    def y(self, loss: ArrayLike) -> NDArray[np.float64]:
        share = (np.asarray(loss, float) - self.low) / (self.high - self.low)
        return np.asarray(_BOTTOM - share * (_BOTTOM - _TOP), float)


def isoflop_svg(fit: IsoFlopFit) -> str:
    """Return loss against N at each budget, with parabolas and minima, as an SVG document.

    Grey ink on nothing, so that it is read on light and on dark paper.
    """
    curves = isoflop_curves(fit)
    scale = _Scale(
        np.concatenate([curve.n_params for curve in curves]),
        np.concatenate([curve.loss for curve in curves]),
    )
    parts = [*_axes(fit, scale)]
    for k, curve in enumerate(curves):
        parts += _drawn(curve, scale, COLOURS[k % len(COLOURS)], marker(k), _TOP + 14 + 20 * k)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {_HEIGHT}' "
        f"width='{_WIDTH}' height='{_HEIGHT}' role='img' {_FONT}>"
        f"<title>IsoFLOP curves and their minima</title>{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, words: str, anchor: str = "start", more: str = "") -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' fill='{INK}' text-anchor='{anchor}' {more}>"
        f"{escape(words)}</text>"
    )


def _axes(fit: IsoFlopFit, scale: _Scale) -> list[str]:
    parts = [_text(_LEFT, 18, "IsoFLOP curves and their minima", more="font-weight='bold'")]
    line = "<line x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}' stroke='{}' stroke-width='0.4'/>"
    for tick in log_ticks(fit.runs.N):
        x = float(scale.x(tick))
        if _LEFT <= x <= _RIGHT:
            parts.append(line.format(x, _TOP, x, _BOTTOM, INK))
            parts.append(_text(x, _BOTTOM + 16, count(float(tick)), "middle"))
    for tick in _round_ticks(scale.low, scale.high):
        y = float(scale.y(tick))
        parts.append(line.format(_LEFT, y, _RIGHT, y, INK))
        parts.append(_text(_LEFT - 6, y + 4, f"{tick:.4g}", "end"))
    middle = (_LEFT + _RIGHT) / 2, (_TOP + _BOTTOM) / 2
    parts.append(_text(middle[0], _BOTTOM + 38, "model size N (parameters)", "middle"))
    turn = f"transform='rotate(-90 16 {middle[1]:.1f})'"
    unit = loss_unit(fit.unit)
    loss = f"held-out loss ({unit})" if unit else "held-out loss"
    parts.append(_text(16, middle[1], loss, "middle", turn))
    return parts


def _round_ticks(low: float, high: float) -> NDArray[np.float64]:
    """Return multiples of 1, 2 or 5 times a power of ten, at most eight of them."""
    decade = 10.0 ** np.floor(np.log10((high - low) / 8))
    step = next(decade * k for k in (1, 2, 5, 10) if decade * k * 8 >= high - low)
    return np.asarray(step * np.arange(np.ceil(low / step), np.floor(high / step) + 1), float)


_OUTLINES = {
    "square": "M-3.5 -3.5h7v7h-7z",
    "diamond": "M0 -5l5 5l-5 5l-5 -5z",
    "triangle-up": "M0 -5l5 8.5h-10z",
    "cross": "M-1.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "x": "M-4 -4l4 2.5l4 -2.5l-2.5 4l2.5 4l-4 -2.5l-4 2.5l2.5 -4z",
    "pentagon": "M0 -4.8l4.6 3.3l-1.8 5.4h-5.6l-1.8 -5.4z",
}


def _mark(shape: str, x: float, y: float) -> str:
    """Return a point in its budget's own shape, told apart without colours."""
    outline = _OUTLINES.get(shape)
    if outline is None:
        return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5'/>"
    return f"<path transform='translate({x:.1f} {y:.1f})' d='{outline}'/>"


def _drawn(
    curve: IsoFlopCurve, scale: _Scale, colour: str, shape: str, legend_y: float
) -> list[str]:
    points = zip(scale.x(curve.n_params), scale.y(curve.loss), strict=True)
    optimum = curve.minimum.status == "optimum"
    fill = colour if optimum else "none"
    dots = "".join(_mark(shape, x, y) for x, y in points)
    parts = [f"<g class='runs' fill='{fill}' stroke='{colour}'>{dots}</g>"]
    if len(curve.line_n_params):
        line = zip(scale.x(curve.line_n_params), scale.y(curve.line_loss), strict=True)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        dash = "" if optimum else "stroke-dasharray='3 3'"
        parts.append(
            f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.5' {dash}/>"
        )
    if optimum:
        x, y = float(scale.x(curve.minimum.n_params)), float(scale.y(curve.minimum.loss))
        parts.append(
            f"<path d='M{x:.1f} {y - 8:.1f}l8 8l-8 8l-8 -8z' fill='{colour}' stroke='white'>"
            f"<title>N* {count(curve.minimum.n_params)}</title></path>"
        )
    parts.append(f"<g fill='{colour}'>{_mark(shape, _RIGHT + 16, legend_y - 4)}</g>")
    parts.append(_text(_RIGHT + 26, legend_y, curve.label))
    return parts
