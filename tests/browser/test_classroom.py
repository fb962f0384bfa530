"""A student plays the classroom game in a real JupyterLab, with charts to see."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser
GAME = """
import scaling_nb as snb
game = snb.Classroom("monday", student="Ada")
game.view()
"""
LECTURER = """
game.submission.to_csv("submissions.csv")
snb.Instructor("monday").view("submissions.csv")
"""
POINTS = """(n) => [...document.querySelectorAll('.snb-chart')].some(
  (e) => e.offsetParent && e.querySelectorAll('.scatterlayer path.point').length >= n)"""
CONTOURS = """(n) => [...document.querySelectorAll('.snb-chart')].filter(
  (e) => e.offsetParent && e.querySelectorAll('.contourlayer path').length > 5).length === n"""


def test_a_student_buys_commits_and_sees_the_truth(lab):
    lab.write(GAME, "1")
    lab.open()
    lab.run_all()
    buy = lab.page.locator("button:has-text('Train this model'):not([disabled])")
    buy.wait_for(timeout=60_000)
    for k in range(1, 4):
        buy.click()
        lab.page.wait_for_selector(f"td:has-text('run-{k}')")
    lab.page.wait_for_function(POINTS, arg=3, timeout=60_000)
    lab.page.locator("button:has-text('Commit')").click()
    lab.page.wait_for_selector("b:has-text('score')")
    lab.page.wait_for_function(CONTOURS, arg=1, timeout=60_000)
    assert lab.python("print(game.submission.n_runs)") == "3"
    with lab.page.expect_download() as saved:
        lab.page.locator("a:has-text('to save as a file')").click()
    assert saved.value.suggested_filename == "Ada.csv"
    line = lab.python("print(game.submission.line)")
    assert saved.value.path().read_text(encoding="utf-8").splitlines()[1] == line

    lab.save()
    lab.write(GAME, "game.buy(1e8, 1e9); game.commit(1e9)", LECTURER)
    lab.server.shut_kernels_down()
    lab.open()
    lab.run_all()
    lab.page.wait_for_selector("td:has-text('Ada')", timeout=60_000)
    # The panel follows what the next cell bought and committed: its truth is the second surface.
    lab.page.wait_for_selector("td:has-text('run-1')")
    lab.page.wait_for_function(CONTOURS, arg=2, timeout=60_000)
    assert lab.outside == []
    assert lab.errors == []
