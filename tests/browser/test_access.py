"""Panels alone, keys, lassos, pictures, and a page that stands still while runs train."""

from __future__ import annotations

import io
import json

import pytest
from flow import ANSWER, DRAWN, NEW, SWEEP, TABLE, assert_clean, status_says, wait

pytestmark = pytest.mark.browser

ALONE = (
    SWEEP
    + """
from IPython.display import display
plan = tiny_plan(recipe, (4e6, 8e6))
sweep = snb.Sweep(recipe, plan, store="alone.db").start()
sweep.wait()
for made in (snb.LossChart(sweep), snb.FitPanel(sweep), snb.PlanPanel(recipe)):
    display(made)
"""
)


def test_panels_alone_are_shown_styled_and_drawn(lab):
    lab.write(ALONE)
    lab.open()
    lab.run_all()
    wait(lab, "() => document.querySelectorAll('.snb-panel').length === 3", timeout=90_000)
    wait(lab, DRAWN, 3)
    widths = lab.page.evaluate(
        "() => [...document.querySelectorAll('.snb-chart')].map((e) => e.offsetWidth)"
    )
    assert min(widths) > 300
    parts = "[...document.querySelectorAll('.snb-slider input, .snb-chart label input')]"
    wait(lab, f"() => {parts}.length > 5 && {parts}.every((e) => e.labels[0]?.textContent)")
    assert lab.page.locator(".jp-OutputArea-output >> text=object at").count() == 0
    assert_clean(lab)


def test_foldable_parts_open_by_key(lab):
    lab.write(TABLE)
    lab.open()
    lab.run_all()
    wait(lab, ANSWER)
    head = lab.page.locator(".jupyter-widget-Collapse-header:has-text('compute-optimal table')")
    lab.page.wait_for_selector(
        ".jupyter-widget-Collapse-header[tabindex='0'][aria-expanded='false']"
    )
    table = lab.page.locator(".snb-scroll:has-text('tokens per parameter')").last
    for key, shown in (("Enter", True), (" ", False), ("Enter", True)):
        head.focus()
        lab.page.keyboard.press(key)
        table.wait_for(state="visible" if shown else "hidden")
        want = str(shown).lower()
        wait(
            lab,
            "(want) => [...document.querySelectorAll('.jupyter-widget-Collapse-header')].some("
            "(e) => e.textContent.includes('compute-optimal table')"
            " && e.getAttribute('aria-expanded') === want)",
            want,
        )
    assert_clean(lab)


def test_a_lasso_takes_points_out_and_back_and_leaves_nothing_behind(lab):
    lab.write(TABLE)
    lab.open()
    lab.run_all()
    wait(lab, ANSWER)
    wait(lab, "() => document.querySelectorAll('.snb-charts path.point').length > 20")
    for said in ("excluded", None):
        chart = lab.page.locator(".snb-charts .snb-chart").first
        chart.hover()
        chart.locator("[data-title='Box Select']").click()
        box = chart.locator(".nsewdrag").bounding_box()
        lab.page.mouse.move(box["x"] + 3, box["y"] + 3)
        lab.page.mouse.down()
        lab.page.mouse.move(box["x"] + 50, box["y"] + 60, steps=5)
        lab.page.mouse.move(box["x"] + 0.35 * box["width"], box["y"] + box["height"] - 3, steps=5)
        lab.page.mouse.up()
        status = "document.querySelector('.snb-status').textContent"
        has = f"{status}.includes('excluded')"
        wait(lab, f"() => {has if said else '!' + has}")
        wait(
            lab,
            "() => !document.querySelector('.snb-charts .selectionlayer path')"
            " && [...document.querySelectorAll('.snb-charts .snb-chart')[0]"
            ".querySelectorAll('path.point')].every((e) => e.style.opacity !== '0.2')",
        )
    assert_clean(lab)


def test_a_typed_budget_stays_and_the_slider_follows_the_hand(lab):
    lab.write(TABLE)
    lab.open()
    lab.run_all()
    wait(lab, ANSWER)
    field = lab.page.get_by_label("C (FLOP)")
    answered = "(text) => document.querySelector('.snb-answer').innerText.includes(text)"
    # Far apart, so that each moves the slider's range: what it says back must not count.
    for typed in ("1e30", "1e12", "1e21", "1e7") * 3:
        field.fill(typed)
        field.press("Enter")
        wait(lab, answered, f"C = {typed} FLOP")
    lab.python("dash.board.settle()")
    assert lab.python("print(dash.board.snapshot.question.target)") == "10000000.0"
    assert field.input_value() == "1e7"
    lab.page.get_by_label("compute C").press("ArrowRight")
    wait(lab, answered, "C = 1.05e7 FLOP")
    assert_clean(lab)


def test_arrows_move_the_control_that_has_the_focus(lab):
    lab.write(TABLE)
    lab.open()
    lab.run_all()
    wait(lab, ANSWER)
    lab.page.get_by_label("method").press("ArrowDown")
    wait(lab, "() => document.querySelector('.snb-panel').innerText.includes('α = ')")
    assert "Approach 3" in lab.page.get_by_label("method").input_value()
    assert_clean(lab)


def test_a_picture_of_the_dark_page_is_for_white_paper(lab):
    from PIL import Image

    lab.write(TABLE)
    lab.open()
    lab.run_all()
    wait(lab, ANSWER)
    lab.theme("JupyterLab Dark")
    wait(lab, "() => document.body.dataset.jpThemeLight === 'false'")
    wait(lab, DRAWN, 2)
    assert lab.page.locator("[data-title*='Share']").count() == 0
    lab.page.locator("button:has-text('PNG')").click()
    lab.page.wait_for_selector(".snb-written:has-text('isoflop.png')")
    picture = Image.open(io.BytesIO((lab.server.folder / "isoflop.png").read_bytes()))
    picture = picture.convert("RGBA")
    assert picture.getpixel((2, 2)) == (255, 255, 255, 255)
    title = picture.crop((0, 0, picture.width // 2, 80)).convert("L")
    assert title.getextrema()[0] < 80
    lab.page.locator("button:has-text('SVG')").click()
    lab.page.wait_for_selector(".snb-written:has-text('isoflop.svg')")
    text = (lab.server.folder / "isoflop.svg").read_text()
    assert "rgb(34, 34, 34)" in text
    assert_clean(lab)


HIDDEN_FOR_A_MOMENT = """() => {
  const frame = window.requestAnimationFrame;
  const panel = document.querySelector('.snb-charts');
  globalThis.hidden = 0;
  window.requestAnimationFrame = (f) => frame((now) => {
    const hide = f.name === 'draw' && globalThis.hidden < 2;
    if (hide) panel.style.display = 'none';
    f(now);
    if (hide) panel.style.display = '';
    globalThis.hidden += hide;
  });
  globalThis.before = globalThis.__scaling_nb__.draws.length;
  document.body.dataset.jpThemeName = 'another';
}"""


def test_a_chart_that_was_hidden_for_the_moment_of_its_draw_is_drawn(lab):
    lab.write(TABLE)
    lab.open()
    lab.run_all()
    wait(lab, ANSWER)
    wait(lab, DRAWN, 2)
    lab.page.evaluate(HIDDEN_FOR_A_MOMENT)
    wait(lab, "() => globalThis.hidden === 2")
    wait(lab, "() => globalThis.__scaling_nb__.draws.length >= globalThis.before + 2")
    assert_clean(lab)


def test_nothing_moves_while_runs_train(lab):
    lab.write(NEW.replace("NAME", "still"))
    lab.open()
    lab.run_all()
    start = lab.page.locator("button:has-text('start'):not([disabled])")
    start.wait_for(timeout=90_000)
    lab.page.wait_for_selector("tr[data-run]")
    wait(lab, DRAWN, 3)
    lab.python("hurry.clear()")
    start.click()
    points = "() => Number(document.querySelector('.snb-chart')?.dataset.points)"
    wait(lab, f"{points} > 20")
    lab.page.evaluate(
        """() => {
          const panel = document.querySelector('.snb-panel');
          const seen = (globalThis.seen = {});
          const parts = { charts: '.snb-charts', table: 'tr[data-run]', answer: '.snb-answer' };
          const look = () => {
            const top = panel.getBoundingClientRect().top;
            if (!document.querySelector('.snb-status').textContent.includes('running')) return;
            for (const [name, css] of Object.entries(parts)) {
              const at = Math.round(document.querySelector(css).getBoundingClientRect().top - top);
              (seen[name] ??= {})[at] = (seen[name][at] ?? 0) + 1;
            }
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    wait(lab, "() => Object.keys(globalThis.seen).length === 3")
    lab.python("hurry.set()")
    status_says(lab, "finished")
    wait(lab, ANSWER)
    seen = lab.page.evaluate("() => globalThis.seen")
    assert {name: len(tops) for name, tops in seen.items()} == {
        "charts": 1, "table": 1, "answer": 1,
    }, json.dumps(seen)  # fmt: skip


def test_the_table_sorts_and_the_legend_dims_and_axes_change(lab):
    lab.write(NEW.replace("NAME", "axes"))
    lab.open()
    lab.run_all()
    start = lab.page.locator("button:has-text('start'):not([disabled])")
    start.wait_for(timeout=90_000)
    start.click()
    status_says(lab, "finished")
    head = lab.page.locator("th:has(button:text-is('loss'))")
    for order in ("ascending", "descending"):
        head.locator("button").click()
        lab.page.wait_for_selector(f"th[aria-sort='{order}']:has-text('loss')")
        column = [b.strip() for b in lab.page.locator("thead th").all_inner_texts()].index("loss")
        cells = lab.page.locator(f"tr[data-run] td:nth-child({column + 2})").all_inner_texts()
        losses = [float(text) for text in cells]
        assert losses == sorted(losses, reverse=order == "descending")
    chart = lab.page.locator(".snb-chart").first
    plot = "document.querySelector('.snb-chart .js-plotly-plot')"
    assert lab.page.evaluate(f"() => {plot}.layout.xaxis.type") == "linear"
    chart.get_by_label("log x").check()
    wait(lab, f"() => {plot}.layout.xaxis.type === 'log'")
    before = lab.page.evaluate(f"() => [...{plot}.data[1].y]")
    chart.get_by_label("smoothing").fill("0.9")
    wait(lab, f"(old) => {plot}.data[1].y.at(-1) !== old.at(-1)", before)
    chart.locator("select").select_option("seconds")
    wait(
        lab,
        f"() => {plot}.layout.xaxis.title.text === 'seconds'"
        f" && {plot}.data.filter((t) => t.x[0] !== null).every("
        "(t) => t.x.every(Number.isFinite) && t.x.at(-1) < 120)",
    )
    chart.locator(".legendtoggle").first.click()
    wait(lab, f"() => {plot}.data.filter((t) => t.opacity < 0.5).length > 2")
    wait(lab, f"() => {plot}.data.some((t) => t.opacity === 1)")
    assert_clean(lab)
