"""One chart as a widget: Plotly in the browser, fed by float32 patches over binary buffers.

A patch holds at most `NEW` new points a trace, a trace at most `KEPT` points, so an update costs
a few kilobytes whatever the runs have logged. Nothing of a chart lives in widget state: each
new view (a second one, a reloaded page, a second browser) asks for a snapshot, asks again until
it has one, and asks anew when it sees a gap in the sequence.
"""

from __future__ import annotations

import gzip
import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import plotly.graph_objects as go
import traitlets
from numpy.typing import ArrayLike, NDArray
from plotly.offline import get_plotlyjs
from tsdownsample import MinMaxLTTBDownsampler

from .comms import keep_listening
from .ticker import shared_ticker

Floats = NDArray[np.float32]
Pick = Callable[[tuple[str, ...], str], object]

NEW = 8
"""Most new points a trace in one patch."""
KEPT = 512
"""Most points kept of a trace."""
_THINNED = KEPT // 2
_BURST = 100
_DECIMATOR: Any = MinMaxLTTBDownsampler()  # type: ignore[no-untyped-call]
_ROWS = 3  # x, y, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One streamed line.

    Attributes
    ----------
    key : str
        The run's identifier.
    label, group : str
        Shown on hover; and in the legend, once for all traces of a group.
    rank : int
        Place in the legend.
    colour, dash, full : str
        `full` is the colour of the group in the legend; empty: that of its first trace.
    width : float, pixels
    scales : mapping of str to float
        What one unit of x is on each other axis: ``{"steps": 1 / tokens_per_step, ...}``.
    """

    key: str
    label: str
    group: str
    rank: int = 0
    colour: str
    dash: str = "solid"
    full: str = ""
    width: float = 1.4
    scales: Mapping[str, float]


@dataclass(slots=True)
class _Line:
    trace: Trace
    points: Floats
    n: int = 0

    @property
    def kept(self) -> Floats:
        return self.points[:, : self.n]


def decimate(x: NDArray[Any], y: NDArray[Any], n_out: int) -> NDArray[np.intp]:
    """Return the indices of at most `n_out` points that keep the line's shape (MinMaxLTTB).

    References
    ----------
    Van Der Donckt et al. 2023, MinMaxLTTB.
    """
    if len(y) <= n_out:
        return np.arange(len(y))
    chosen = _DECIMATOR.downsample(
        np.ascontiguousarray(x, np.float64), np.ascontiguousarray(y, np.float64), n_out=n_out
    )
    return np.asarray(chosen, dtype=np.intp)


@cache
def packed_plotly() -> bytes:
    """Return the installed plotly package's own plotly.js, gzip."""
    return gzip.compress(get_plotlyjs().encode(), 6)


class LiveChart(anywidget.AnyWidget):
    """A Plotly figure whose traces grow while it is watched.

    :meth:`append` may be called from any thread and only takes a lock; :meth:`publish`,
    :meth:`add` and :meth:`show` belong to the publisher's thread.

    Parameters
    ----------
    label : str
        What the chart shows, for a screen reader.
    figure : go.Figure, optional
        Axes, title and still traces.
    height : int, pixels
    controls : bool
        Whether the person chooses x axis, scales and smoothing above the chart.
    """

    _esm = Path(__file__).with_suffix(".js")
    label = traitlets.Unicode("").tag(sync=True)
    summary = traitlets.Unicode("").tag(sync=True)
    height = traitlets.Int(350).tag(sync=True)
    controls = traitlets.Bool(False).tag(sync=True)
    picks = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        label: str,
        figure: go.Figure | None = None,
        *,
        height: int = 350,
        controls: bool = False,
    ) -> None:
        self._lock = threading.Lock()
        self._sending = threading.RLock()
        self._waiting: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {}
        self._newest = 0.0
        self._lines: dict[str, _Line] = {}
        self._figure: dict[str, Any] = _plain(figure)
        self._seq = 0
        self._clocks: dict[str, float] = {}
        self._anew: set[str] = set()
        self._pick: Pick | None = None
        self._images: dict[int, tuple[str, Callable[[bytes], object]]] = {}
        self._image_ids = itertools.count()
        super().__init__(label=label, height=height, controls=controls)
        keep_listening(self)
        self.on_msg(self._on_message)

    def begin(self, key: str) -> None:
        """Start the clock of a run that begins, and empty its line if it had one."""
        with self._lock:
            self._waiting.pop(key, None)
            self._clocks[key] = time.monotonic()
            self._anew.add(key)

    def append(self, key: str, x: ArrayLike, y: ArrayLike) -> None:
        """Note new points of one trace, both of shape (n_points,)."""
        xs, ys = np.asarray(x), np.asarray(y)
        with self._lock:
            self._waiting.setdefault(key, []).append((xs, ys))
            self._newest = time.time()

    def add(self, traces: Sequence[Trace]) -> None:
        """Begin new traces; those that exist already stay as they are."""
        with self._sending:
            new = [trace for trace in traces if trace.key not in self._lines]
            for trace in new:
                self._lines[trace.key] = _Line(trace, np.empty((_ROWS, KEPT + NEW), np.float32))
            if new:
                self._seq += 1
                self.send(
                    {"kind": "add", "seq": self._seq, "traces": [asdict(trace) for trace in new]}
                )

    def load(self, key: str, x: ArrayLike, y: ArrayLike, seconds: float = np.nan) -> None:
        """Put a trace's past in place of what it holds; :meth:`refresh` shows it."""
        xs, ys = np.asarray(x, float), np.asarray(y, float)
        known = np.flatnonzero(np.isfinite(ys))
        known = known[decimate(xs[known], ys[known], _THINNED)]
        with self._lock:
            self._waiting.pop(key, None)
            self._anew.discard(key)
        with self._sending:
            line = self._lines[key]
            line.n = len(known)
            share = xs[known] / xs[-1] if len(xs) else xs
            line.kept[:] = np.stack([xs[known], ys[known], share * seconds])
            if np.isfinite(seconds):
                self._clocks.setdefault(key, time.monotonic() - seconds)

    def _empty(self, keys: set[str]) -> None:
        """Empty the lines of runs that begin again."""
        with self._sending:
            drawn = [key for key in keys if key in self._lines and self._lines[key].n]
            for key in drawn:
                self._lines[key].n = 0
            if drawn:
                self.refresh()

    def restart(self, key: str) -> None:
        """Empty a trace whose run waits to begin again."""
        with self._lock:
            self._waiting.pop(key, None)
        self._empty({key})

    def clock(self, key: str) -> float:
        """Return the seconds since a run began; NaN where nobody here saw it begin."""
        began = self._clocks.get(key)
        return float("nan") if began is None else time.monotonic() - began

    def show(self, figure: go.Figure) -> None:
        """Put another figure in place of the present one; zoom and selection stay."""
        plain = _plain(figure)
        with self._sending:
            if plain == self._figure:
                return
            self._figure = plain
            self._seq += 1
            self.send({"kind": "figure", "seq": self._seq, "figure": plain})

    def publish(self) -> int:
        """Send what has come since the last call as one message; returns its bytes."""
        with self._lock:
            (waiting, self._waiting), newest = (self._waiting, {}), self._newest
            anew, self._anew = self._anew, set()
        self._empty(anew)
        if not waiting:
            return 0
        now = time.monotonic()
        counts: list[tuple[int, int, int]] = []
        points, masks = [], []
        with self._sending:
            for place, (key, line) in enumerate(self._lines.items()):
                if key not in waiting:
                    continue
                new = _new_points(waiting.pop(key), line, now - self._clocks.setdefault(key, now))
                if not new.shape[1]:
                    continue
                mask = _extend(line, new)
                counts.append((place, new.shape[1], int(mask is not None)))
                points.append(new)
                if mask is not None:
                    masks.append(np.packbits(mask, bitorder="little").tobytes())
            self._put_back(waiting)
            if not counts:
                return 0
            self._seq += 1
            buffers = [
                np.array(counts, "<u2").tobytes(),
                np.concatenate([p[:2].ravel() for p in points]).astype("<f4").tobytes(),
                b"".join(masks),
            ]
            ends = [float(p[2, -1]) for p in points]
            buffers.insert(2, np.array(ends, "<f4").tobytes())
            self.send({"kind": "patch", "seq": self._seq, "stamp": newest}, buffers)
        return sum(map(len, buffers))

    @property
    def n_drawn(self) -> int:
        """How many traces have points."""
        return sum(line.n > 0 for line in list(self._lines.values()))

    def _put_back(self, waiting: Mapping[str, list[tuple[NDArray[Any], NDArray[Any]]]]) -> None:
        """Let points wait whose trace has not been added yet."""
        with self._lock:
            for key, parts in waiting.items():
                self._waiting.setdefault(key, [])[:0] = parts

    def refresh(self) -> None:
        """Send every view the whole state."""
        with self._sending:
            lines = list(self._lines.values())
            content = {
                "kind": "snapshot",
                "seq": self._seq,
                "figure": self._figure,
                "traces": [asdict(line.trace) for line in lines],
            }
            counts = np.array([line.n for line in lines], "<u2").tobytes()
            kept = [line.kept.ravel() for line in lines] or [np.empty(0, np.float32)]
            points = np.concatenate(kept).astype("<f4").tobytes()
            self.send(content, [counts, points])
        for number, (form, _) in list(self._images.items()):
            self.send({"kind": "image", "format": form, "id": number})

    def on_pick(self, react: Pick) -> None:
        """Call `react(keys, how)` when points are clicked (``"click"``) or lassoed (``"lasso"``).

        Called on whatever thread the kernel handles messages: enqueue and return.
        """
        self._pick = react
        self.picks = True

    def request_image(self, react: Callable[[bytes], object], form: str = "png") -> None:
        """Ask the views for a picture of the chart; the first to answer calls `react`.

        Where no page shows the chart, the next that does is asked.
        """
        number = next(self._image_ids)
        self._images[number] = form, react
        self.send({"kind": "image", "format": form, "id": number})

    @property
    def points(self) -> dict[str, Floats]:
        """What is drawn of each trace: x, y and seconds, shape (3, n_points)."""
        with self._sending:
            return {key: line.kept.copy() for key, line in self._lines.items()}

    def _on_message(self, _: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        match content.get("kind"):
            case "hello":
                shared_ticker().call(self.refresh)
            case "seen" if content["seq"] != self._seq:
                shared_ticker().call(self.refresh)
            case "plotly":
                shared_ticker().call(lambda: self.send({"kind": "plotly"}, [packed_plotly()]))
            case "pick" if self._pick is not None:
                self._pick(tuple(content["keys"]), str(content["how"]))
            case "image" if content["id"] in self._images:
                _, react = self._images.pop(content["id"])
                react(bytes(buffers[0]))


def _new_points(
    parts: Sequence[tuple[NDArray[Any], NDArray[Any]]], line: _Line, now: float
) -> Floats:
    x = np.concatenate([part[0] for part in parts]).astype(float)
    y = np.concatenate([part[1] for part in parts]).astype(float)
    known = np.flatnonzero(np.isfinite(y))
    x, y = x[known], y[known]
    last = line.points[:, line.n - 1] if line.n else np.zeros(_ROWS)
    # A branch begins with its trunk's whole curve: a line's first points may be many.
    chosen = decimate(x, y, NEW if line.n or len(y) < _BURST else _THINNED // 2)
    x, y = x[chosen], y[chosen]
    # Points carry no clock: between two patches they are spread evenly over x. The page does
    # the same, so that seconds need not be sent.
    begin = float(last[2]) if np.isfinite(last[2]) else now
    reach = x[-1] - last[0] if len(x) else 0.0
    share = (x - last[0]) / reach if reach > 0 else np.ones(len(x))
    return np.stack([x, y, begin + share * (now - begin)]).astype(np.float32)


def _extend(line: _Line, new: Floats) -> NDArray[np.bool_] | None:
    """Append points; where they get too many, thin the line and return which stay."""
    end = line.n + new.shape[1]
    line.points[:, line.n : end] = new
    line.n = end
    if end <= KEPT:
        return None
    mask = np.zeros(end, dtype=bool)
    mask[decimate(line.kept[0], line.kept[1], _THINNED)] = True
    mask[-1] = True
    thinned = line.kept[:, mask]
    line.n = thinned.shape[1]
    line.kept[:] = thinned
    return mask


def _plain(figure: go.Figure | None) -> dict[str, Any]:
    """Return a figure as JSON; the template, which is thousands of defaults, left out."""
    if figure is None:
        return {"data": [], "layout": {}}
    plain: dict[str, Any] = json.loads(figure.to_json())
    plain["layout"].pop("template", None)
    return plain
