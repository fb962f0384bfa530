"""The chart's channel: what goes over the wire is what a view ends up with."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from scaling_nb.plots.style import axis, figure
from scaling_nb.ui.live_chart import KEPT, NEW, LiveChart, Trace, decimate


def trace(key: str) -> Trace:
    return Trace(key=key, label=key, group="g", colour="#0072B2", scales={"steps": 1.0, "flops": 1})


class View:
    """What a page does with the messages, told again in Python: live_chart.js, class State."""

    def __init__(self) -> None:
        self.seq, self.keys, self.lines = -1, [], {}

    def receive(self, content, buffers) -> None:
        if content["kind"] == "snapshot":
            self.seq, self.keys = content["seq"], [t["key"] for t in content["traces"]]
            counts = np.frombuffer(buffers[0], "<u2")
            points, at = np.frombuffer(buffers[1], "<f4"), 0
            for key, n in zip(self.keys, counts, strict=True):
                self.lines[key] = points[at : at + 3 * n].reshape(3, n)
                at += 3 * n
        elif content["seq"] > self.seq:
            assert content["seq"] == self.seq + 1, "a gap"
            self.seq = content["seq"]
            if content["kind"] == "add":
                for new in content["traces"]:
                    self.keys.append(new["key"])
                    self.lines[new["key"]] = np.empty((3, 0), np.float32)
            if content["kind"] == "patch":
                self.patch(buffers)

    def patch(self, buffers) -> None:
        points, masks, at, bit = np.frombuffer(buffers[1], "<f4"), buffers[3], 0, 0
        ends = np.frombuffer(buffers[2], "<f4")
        counts = np.frombuffer(buffers[0], "<u2").reshape(-1, 3)
        for (place, n, thinned), now in zip(counts, ends, strict=True):
            key = self.keys[place]
            old, (x, y) = self.lines[key], points[at : at + 2 * n].reshape(2, n)
            begin, start = (old[2, -1], old[0, -1]) if old.shape[1] else (0.0, 0.0)
            share = (x - start) / (x[-1] - start) if x[-1] > start else np.ones(n)
            line = np.concatenate([old, [x, y, begin + share * (now - begin)]], axis=1)
            at += 2 * n
            if thinned:
                size = (line.shape[1] + 7) // 8
                bits = np.frombuffer(masks[bit : bit + size], np.uint8)
                mask = np.unpackbits(bits, bitorder="little")[: line.shape[1]].astype(bool)
                line, bit = line[:, mask], bit + size
            self.lines[key] = line


def replay(chart: LiveChart, view: View, kinds=("snapshot", "add", "patch", "figure")) -> None:
    for data, buffers in chart.comm.sent:
        content = data.get("content", {})
        if content.get("kind") in kinds:
            view.receive(content, buffers)
    chart.comm.sent.clear()


def test_a_view_that_saw_every_patch_has_what_the_kernel_has(rng):
    chart, view = LiveChart("loss"), View()
    chart.refresh()
    chart.add([trace("a"), trace("b")])
    at = dict.fromkeys("ab", 0)
    for _ in range(200):
        for key in "ab":
            n = int(rng.integers(0, 30))
            x = np.arange(at[key], at[key] + n)
            at[key] += n
            chart.append(key, x, rng.normal(size=n))
        chart.publish()
    replay(chart, view)
    for key, points in chart.points.items():
        assert 2 * NEW < points.shape[1] <= KEPT
        assert np.array_equal(view.lines[key][:2], points[:2])
        assert np.allclose(view.lines[key][2], points[2], rtol=1e-4)
        assert np.all(np.diff(points[0]) > 0)


def test_a_new_view_gets_the_whole_state_and_then_goes_on(rng, say, settle):
    chart = LiveChart("loss")
    chart.add([trace("a")])
    chart.append("a", np.arange(100), rng.normal(size=100))
    chart.publish()
    chart.comm.sent.clear()
    say(chart, kind="hello")
    settle()
    view = View()
    chart.append("a", np.arange(100, 110), rng.normal(size=10))
    chart.publish()
    replay(chart, view)
    assert np.array_equal(view.lines["a"][:2], chart.points["a"][:2])


def test_a_view_that_missed_the_last_message_gets_the_whole_state(rng, say, settle):
    chart = LiveChart("loss")
    chart.add([trace("a")])
    for x in (0, 1):
        chart.append("a", [x], [1.0])
        chart.publish()
    last = chart.comm.sent[-1][0]["content"]["seq"]
    chart.comm.sent.clear()
    say(chart, kind="seen", seq=last)
    settle()
    assert not chart.comm.sent
    say(chart, kind="seen", seq=last - 1)
    settle()
    view = View()
    replay(chart, view)
    assert np.array_equal(view.lines["a"][:2], chart.points["a"][:2])


def test_an_update_of_a_hundred_traces_is_small_whatever_was_logged(rng):
    chart = LiveChart("loss")
    chart.add([trace(f"run{i:09d}") for i in range(100)])
    sizes = []
    for tick in range(70):
        for i in range(100):
            x = np.arange(1000 * tick, 1000 * (tick + 1))
            chart.append(f"run{i:09d}", x, rng.normal(size=1000))
        sizes.append(chart.publish())
    # The first tick carries what was there before. A tick in which lines are thinned carries a
    # bit a point besides; it is one in thirty.
    sizes = sizes[1:]
    assert np.quantile(sizes, 0.9) <= 100 * (8 * NEW + 10) < 10_240 - 1_000
    assert max(sizes) <= 100 * (8 * NEW + 10 + (KEPT + NEW) // 8)
    assert all(p.shape[1] <= KEPT for p in chart.points.values())


def test_decimation_keeps_ends_and_extremes(rng):
    y = rng.normal(size=5000)
    y[1234], y[4321] = 50.0, -50.0
    kept = decimate(np.arange(5000), y, 64)
    assert {0, 1234, 4321, 4999} <= set(kept.tolist())
    assert len(kept) <= 64


def test_losses_that_are_no_number_are_not_drawn():
    chart = LiveChart("loss")
    chart.add([trace("a")])
    chart.append("a", np.arange(4), np.array([1.0, np.nan, np.inf, 2.0]))
    chart.publish()
    assert chart.points["a"][1].tolist() == [1.0, 2.0]


def test_points_of_a_trace_that_is_not_there_yet_wait_for_it():
    chart = LiveChart("loss")
    chart.append("a", np.arange(3), np.ones(3))
    assert chart.publish() == 0
    chart.add([trace("a")])
    assert chart.publish() > 0
    assert chart.points["a"].shape[1] == 3


def test_a_run_that_begins_again_begins_with_an_empty_line():
    chart = LiveChart("loss")
    chart.add([trace("a")])
    chart.append("a", np.arange(3), np.ones(3))
    chart.publish()
    chart.restart("a")
    assert chart.points["a"].shape[1] == 0
    (_, buffers), *_ = chart.comm.custom("snapshot")
    assert np.frombuffer(buffers[0], "<u2").tolist() == [0]


def test_the_past_of_a_run_is_thinned_and_has_its_clock():
    chart = LiveChart("loss")
    chart.add([trace("a")])
    chart.load("a", np.arange(1, 10_001), np.linspace(5, 1, 10_000), seconds=60.0)
    x, y, seconds = chart.points["a"]
    assert len(x) <= KEPT // 2
    assert seconds[-1] == pytest.approx(60.0)
    assert y[-1] == pytest.approx(1.0)


def test_a_figure_is_sent_without_its_template_and_once(table):
    chart = LiveChart("still")
    drawing = figure("title", axis("x"), axis("y")).add_scatter(x=[1, 2], y=[3, 4])
    chart.show(drawing)
    chart.show(drawing)
    ((content, _),) = chart.comm.custom("figure")
    assert content["figure"]["layout"]["title"]["text"] == "title"
    assert "template" not in content["figure"]["layout"]


def test_plotly_is_the_installed_packages_own(say, settle):
    chart = LiveChart("loss")
    say(chart, kind="plotly")
    settle()
    ((_, (packed,)),) = chart.comm.custom("plotly")
    assert gzip.decompress(packed).decode() == get_plotlyjs()
    assert len(packed) < 2_000_000


def test_what_is_picked_reaches_the_callback_and_nothing_else_does(say):
    chart, heard = LiveChart("iso"), []
    say(chart, kind="pick", keys=["a"], how="click")
    chart.on_pick(lambda keys, how: heard.append((keys, how)))
    say(chart, kind="pick", keys=["a", "b"], how="lasso")
    say(chart, kind="unknown")
    assert heard == [(("a", "b"), "lasso")]


def test_a_picture_comes_back_to_whoever_asked():
    chart, got = LiveChart("iso"), []
    chart.request_image(got.append, "svg")
    chart.request_image(got.append, "png")
    first, second = (content for content, _ in chart.comm.custom("image"))
    assert (first["format"], second["format"]) == ("svg", "png")
    for answer in (b"png", b"of a second view"):
        chart._handle_custom_msg({"kind": "image", "id": second["id"]}, [memoryview(answer)])
    chart._handle_custom_msg({"kind": "image", "id": first["id"]}, [memoryview(b"<svg/>")])
    assert got == [b"png", b"<svg/>"]


def test_a_page_that_opens_is_asked_for_the_pictures_nobody_sent():
    chart = LiveChart("iso")
    chart.request_image(print)
    chart.refresh()
    assert len(chart.comm.custom("image")) == 2


def test_a_branch_begins_with_its_trunks_whole_curve(rng):
    chart = LiveChart("loss")
    chart.add([trace("branch")])
    x = np.arange(5000)
    chart.append("branch", x, 5 / (1 + x / 50) + 0.1 * rng.normal(size=5000))
    chart.publish()
    drawn = chart.points["branch"]
    assert drawn.shape[1] > 100
    assert np.max(np.diff(drawn[0])) < 500
