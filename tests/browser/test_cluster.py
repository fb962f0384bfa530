"""The quick-start notebook on a cluster: live in the panel, through the loss of a node."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest
from flow import ANSWER, DRAWN, assert_clean, status_says, wait
from ray_cluster import cluster

import scaling_nb as snb

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(900)]
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_quickstart.ipynb"
LOST = "127.0.0.4"

POINTS = "() => Number(document.querySelector('.snb-chart')?.dataset.points ?? 0)"
TRAINS_ON = """(node) => [...document.querySelectorAll('tr[data-run]')].some(
  (row) => row.innerText.includes('running') && row.innerText.includes(node))"""
TABLE = """
import json
_runs = dash.sweep.runs
print(json.dumps([list(_runs.run_ids), [loss.hex() for loss in _runs.L.tolist()],
                  result.chinchilla_table().to_csv(index=False)]))
"""


def on_a_cluster(address: str):
    """Return the notebook as its reader changes it."""
    book = nbformat.read(NOTEBOOK, as_version=4)
    for old, new in (('executor="auto"', 'executor="ray"'), ("quick = False", "quick = True")):
        assert sum(cell.source.count(old) for cell in book.cells) == 1
        for cell in book.cells:
            cell.source = cell.source.replace(old, new)
    book.cells.insert(1, nbformat.v4.new_code_cell(f"%env RAY_ADDRESS={address}"))
    return book


def trained_here(folder: Path):
    recipe = snb.quickstart_recipe(quick=True)
    sweep = snb.Sweep(
        recipe,
        snb.quickstart_plan(recipe, quick=True),
        store=folder / "runs.db",
        executor="threads",
    ).start()
    assert sweep.wait(600)
    table = snb.result_of(sweep).chinchilla_table()
    return [
        list(sweep.runs.run_ids),
        [loss.hex() for loss in sweep.runs.L.tolist()],
        table.to_csv(index=False),
    ]


def picture(lab, name: str) -> None:
    """Keep what is seen, where somebody wants to look at it."""
    if folder := os.environ.get("SCALING_NB_PICTURES"):
        lab.page.locator(".snb-panel").screenshot(path=f"{folder}/{name}.png")


def test_the_quick_start_on_three_nodes_gives_the_same_table_though_one_is_lost(lab, tmp_path):
    with cluster(n_nodes=2) as nodes:
        lab.put(on_a_cluster(nodes.address))
        lab.open()
        lab.run_all()
        wait(lab, f"(n) => ({POINTS})() > n", 50, timeout=180_000)
        wait(lab, TRAINS_ON, "127.0.0.3", timeout=180_000)
        lab.page.wait_for_selector(".snb-panel :text('3 nodes')")
        before = lab.page.evaluate(POINTS)
        wait(lab, f"(n) => ({POINTS})() > n", before)
        picture(lab, "training")
        lab.page.locator(".snb-panel :text('event log')").click()
        wait(lab, TRAINS_ON, LOST, timeout=180_000)
        nodes.kill(LOST)
        log = lab.page.locator(".snb-log")
        try:
            # By its address, or as "its machine" where the run had only just been sent there.
            log.get_by_text("was lost").first.wait_for(timeout=120_000)
        except Exception:
            picture(lab, "unheard")
            raise AssertionError(log.inner_text()) from None
        lab.page.wait_for_selector(".snb-panel :text('2 nodes')")
        wait(lab, f"(node) => !({TRAINS_ON})(node)", LOST)
        picture(lab, "lost")
        status_says(lab, "finished", timeout=400_000)
        wait(lab, ANSWER, timeout=120_000)
        wait(lab, DRAWN, 3)
        picture(lab, "finished")
        got = json.loads(lab.python(TABLE))
        shown = lab.page.locator("tr[data-run]").count()
    run_ids, losses, table = trained_here(tmp_path)
    assert shown == len(run_ids) >= 12
    assert got[0] == run_ids
    assert got[1] == losses
    assert got[2] == table
    assert_clean(lab)
