"""A chart that streams: what is drawn between Plotly's draws, and who holds the axes."""

from __future__ import annotations

import pytest
from flow import assert_clean, wait

pytestmark = pytest.mark.browser

CHART = """
import threading
import numpy as np
from scaling_nb.plots.style import axis, figure
from scaling_nb.ui.live_chart import LiveChart, Trace
from scaling_nb.ui.ticker import shared_ticker
chart = LiveChart("loss", figure("loss", axis("x"), axis("y")), controls=True)
chart.add([
    Trace(key=f"r{i}", label=f"run {i}", group=str(i % 2), colour="#0072B2",
          scales={"steps": 0.1, "flops": 1e5})
    for i in range(6)
])
past = np.arange(1, 1000)
for i in range(6):
    chart.load(f"r{i}", 10.0 * past, 3 + 2 / past + 0.1 * i, 100.0)
quiet = threading.Event()
shared_ticker().every(chart.publish)
def feed():
    k = 1000
    while not quiet.wait(0.02):
        k += 1
        for i in range(6):
            chart.append(f"r{i}", [10.0 * k], [3 + 2 / k + 0.1 * i])
feeder = threading.Thread(target=feed, daemon=True)
feeder.start()
chart
"""
PLOT = "document.querySelector('.snb-chart .js-plotly-plot')"
DRAWS = "(globalThis.__scaling_nb__?.draws ?? [])"
ENDS = f"() => {DRAWS}.filter((draw) => !draw.whole).length"


def test_a_stream_grows_at_its_ends_and_its_axes_follow(lab):
    lab.write(CHART)
    lab.open()
    lab.run_all()
    wait(lab, f"{ENDS} > 5")
    lab.page.evaluate(f"() => {{ {DRAWS}.length = 0; }}")
    inked = f"""() => {{
      const canvas = {PLOT}.querySelector('.svg-container > canvas');
      const {{ width, height }} = canvas ?? {{}};
      return width && canvas.getContext('2d').getImageData(0, 0, width, height).data
        .some((value) => value > 0);
    }}"""
    wait(lab, inked)
    wait(lab, f"{ENDS} > 10")
    assert lab.page.evaluate(f"() => {DRAWS}.filter((draw) => draw.whole).length") <= 3
    # A zoom stays until it is given back.
    range_ = f"{PLOT}.layout.xaxis.range"
    box = lab.page.locator(".snb-chart .nsewdrag").first.bounding_box()
    left, top = box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"]
    lab.page.mouse.move(left, top)
    lab.page.mouse.down()
    lab.page.mouse.move(left + 0.3 * box["width"], top + 0.5 * box["height"], steps=4)
    lab.page.mouse.up()
    lab.page.mouse.move(5, 5)
    before = lab.page.evaluate(f"() => [...{range_}]")
    for weight in ("0.6", "0.7"):
        lab.page.evaluate(f"() => {{ {DRAWS}.length = 0; }}")
        lab.page.get_by_label("smoothing").fill(weight)
        wait(lab, f"() => {DRAWS}.some((draw) => draw.whole)")
    assert lab.page.evaluate(f"() => [...{range_}]") == before
    lab.page.mouse.dblclick(left, top)
    wait(lab, f"(before) => {range_}[1] > before[1] && {range_}[0] < before[0]", before)
    # A run that diverges leaves the others readable, and is named.
    lab.python("chart.append('r3', [1.2e4], [1e9])")
    notes = f"{PLOT}.layout.annotations"
    said = f"{notes}.some((note) => note.text.includes('run 3 goes on to 1.00e+9'))"
    wait(lab, f"() => {said}")
    assert lab.page.evaluate(f"() => {PLOT}.layout.yaxis.range[1]") < 100
    lab.page.locator(".snb-chart").get_by_label("log y").check()
    wait(lab, f"() => {PLOT}.layout.yaxis.type === 'log' && {said}")
    assert lab.page.evaluate(f"() => {PLOT}.layout.yaxis.range[1]") < 4
    # In the end Plotly has drawn all, to be hovered, and the room is given back.
    lab.python("quiet.set(); feeder.join(); shared_ticker().settle(); chart.publish()")
    last = float(lab.python("print(chart.points['r0'][0, -1])"))
    wait(lab, f"(last) => {PLOT}.data[1].x.at(-1) === last", last)
    wait(lab, f"(last) => {PLOT}.layout.xaxis.range[1] < 1.05 * last", last)
    assert_clean(lab)
