"""What a person does, in a real JupyterLab, in a real browser."""

from __future__ import annotations

import json

import pytest
from flow import AGAIN, ANSWER, DRAWN, NEW, TABLE, answer, assert_clean, status_says, wait

pytestmark = pytest.mark.browser


def test_a_person_gets_from_a_plan_to_an_answer(lab):
    lab.write(NEW.replace("NAME", "flow"))
    lab.open()
    lab.run_all()
    start = lab.page.locator("button:has-text('start'):not([disabled])")
    start.wait_for(timeout=90_000)
    # The plan is chosen on the page: what is impossible is answered there, and cannot start.
    typed = lab.page.get_by_placeholder("1e12, 3e12, 1e13")
    typed.fill("1e3")
    typed.press("Enter")
    lab.page.wait_for_selector("button:has-text('start')[disabled]")
    lab.page.wait_for_selector(".snb-warn:has-text('feasible')")
    typed.fill("4e6, 8e6, 1.6e7")
    typed.press("Enter")
    lab.page.wait_for_selector(".snb-panel :text('C = 4e6, 8e6, 1.6e7 FLOP')")
    start.wait_for()
    lab.python("hurry.clear()")
    start.click()
    points = "() => Number(document.querySelector('.snb-chart')?.dataset.points)"
    wait(lab, f"{points} > 20")
    lab.page.locator("button:has-text('pause'):not([disabled])").click()
    status_says(lab, "paused")
    lab.python("hurry.set()")
    lab.page.locator("button:has-text('resume')").click()
    status_says(lab, "finished")
    wait(lab, ANSWER)
    said = lab.page.inner_text(".snb-spoken")
    assert "runs done" in said
    assert "N* at" in said

    wait(lab, "() => document.querySelectorAll('.snb-charts path.point').length > 5")
    before = answer(lab)
    rows = lab.page.locator("tr[data-run] input[type=checkbox]")
    rows.nth(5).check()
    lab.page.fill("input[aria-label^='reason']", "a bad node")
    lab.page.locator("button[data-verb=exclude]").click()
    wait(lab, "(old) => document.querySelector('.snb-answer').innerText !== old", before)
    lab.page.wait_for_selector("td:has-text('a bad node')")
    assert json.loads(lab.python("import json; print(json.dumps(dash.runs.exclusions))"))

    lab.page.locator("button:has-text('CSV')").click()
    lab.page.wait_for_selector(".snb-written:has-text('scaling_runs.csv')")
    shown = lab.python("print(repr(dash.analysis.answer.n_params))")
    lab.python("names = {}; exec(dash.code.replace('print(answer)', ''), names)")
    assert lab.python("print(repr(names['answer'].n_params))") == shown

    after = answer(lab)
    lab.save()
    lab.reload()
    wait(lab, ANSWER)
    wait(lab, DRAWN, 3)
    assert answer(lab) == after
    assert lab.page.evaluate("() => globalThis.__scaling_nb__.sent") == 1

    lab.write(AGAIN.replace("NAME", "flow"))
    lab.server.shut_kernels_down()
    lab.open()
    lab.run_all()
    wait(lab, ANSWER, timeout=90_000)
    lab.page.wait_for_selector("td:has-text('a bad node')")
    assert answer(lab) == after
    assert_clean(lab)


def test_a_point_is_excluded_by_clicking_it(lab):
    lab.write(TABLE)
    lab.open()
    lab.run_all()
    wait(lab, ANSWER)
    wait(lab, "() => document.querySelectorAll('.snb-charts path.point').length > 20")
    before = answer(lab)
    box = lab.page.locator(".snb-charts path.point").nth(2).bounding_box()
    lab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    lab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    wait(lab, "() => document.querySelector('.snb-status').textContent.includes('1 excluded')")
    wait(lab, "(old) => document.querySelector('.snb-answer').innerText !== old", before)
    lab.page.locator("button:has-text('undo')").click()
    wait(lab, "(old) => document.querySelector('.snb-answer').innerText === old", before)
    nameless = lab.page.evaluate(
        """() => [...document.querySelectorAll(
             '.snb-panel input, .snb-panel select, .snb-panel button, .snb-panel textarea, '
             + '.snb-panel [role=slider]')]
           .filter((e) => e.offsetParent && !e.closest('.js-plotly-plot'))
           .filter((e) => !(e.getAttribute('aria-label') || e.title || e.textContent.trim()
             || (e.labels && [...e.labels].some((l) => l.textContent.trim()))))
           .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []

    wait(lab, "() => document.querySelector('.jp-RenderedSVG')")
    kinds: dict[str, str] = {}
    while "image/svg+xml" not in kinds:  # what pytest's time limit ends
        lab.save()
        kinds = {
            kind: text
            for cell in lab.notebook().cells
            for output in cell.get("outputs", [])
            for kind, text in output.get("data", {}).items()
        }
    shown = kinds["text/html"]
    assert "For C = 1e20 FLOP: N =" in shown
    assert_clean(lab)


def test_the_panel_works_in_notebook_7(lab):
    lab.write(TABLE)
    lab.open_in_notebook()
    lab.run_all()
    wait(lab, ANSWER)
    wait(lab, DRAWN, 2)
    before = answer(lab)
    lab.page.locator("tr[data-run] input[type=checkbox]").nth(5).check()
    lab.page.fill("input[aria-label^='reason']", "a bad node")
    lab.page.locator("button[data-verb=exclude]").click()
    wait(lab, "(old) => document.querySelector('.snb-answer').innerText !== old", before)
    assert_clean(lab)


STREAM = """
import threading, time, numpy as np
from scaling_nb.plots.style import axis, figure
from scaling_nb.ui.live_chart import LiveChart, Trace
from scaling_nb.ui.ticker import shared_ticker
from IPython.display import display
charts = [LiveChart("loss", figure("loss", axis("x"), axis("y")), controls=True) for _ in range(3)]
for chart in charts:
    chart.add([
        Trace(key=f"r{i}", label=str(i), group=str(i % 4), colour="#0072B2",
              scales={"steps": 0.1, "flops": 1e5})
        for i in range(20)
    ])
    shared_ticker().every(chart.publish)

def feed():
    for k in range(1_000_000):
        for chart in charts:
            for i in range(20):
                y = 3 / (1 + 0.01 * k) + 0.1 * i
                chart.append(f"r{i}", np.array([10.0 * k]), np.array([y]))
        time.sleep(0.02)

threading.Thread(target=feed, daemon=True).start()
display(*charts)
"""


def reload_many_times(lab, times):
    lab.write(STREAM)
    lab.open()
    lab.run_all()
    wait(lab, DRAWN, 3)
    lab.save()
    for _ in range(times):
        lab.reload()
        wait(lab, DRAWN, 3, timeout=30_000)
        assert lab.page.evaluate("() => globalThis.__scaling_nb__.sent") == 1
    # What a reloaded page shows is the whole past, not what has come since.
    assert (
        lab.page.evaluate("() => Number(document.querySelector('.snb-chart').dataset.points)") > 400
    )
    assert_clean(lab)


def test_charts_survive_reloads_while_they_stream(lab):
    reload_many_times(lab, 8)


@pytest.mark.slow
def test_charts_survive_twenty_reloads_while_they_stream(lab):
    reload_many_times(lab, 20)


@pytest.mark.slow
@pytest.mark.parametrize("width", [900, 1280])
def test_nothing_sticks_out_of_the_page(chrome, server, width):
    from lab import lab_page

    with lab_page(chrome, server, f"wide{width}.ipynb", width) as lab:
        lab.write(TABLE)
        lab.open()
        lab.command("application:toggle-left-area")
        lab.run_all()
        wait(lab, ANSWER)
        out = lab.page.evaluate(
            """() => {
              const panel = document.querySelector('.snb-panel').getBoundingClientRect();
              const parts = '.snb-panel > * , .snb-charts > *, .snb-row > *';
              return [...document.querySelectorAll(parts)]
                .filter((e) => e.offsetParent && e.getBoundingClientRect().right > panel.right + 1)
                .map((e) => e.outerHTML.slice(0, 120));
            }"""
        )
        assert out == []
