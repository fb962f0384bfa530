"""Every lesson runs top to bottom, unattended, on one core, within its stated time and 2 GB."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from watch import execute

FOLDER = Path(__file__).parents[2] / "notebooks"
LESSONS = sorted(FOLDER.glob("*.ipynb"))
QUICK = ("03", "06", "08")
MOST_MEMORY = 1.2e9
MOST_SECONDS = 240
SLOWNESS = 2.0
"""How many times slower than stated a busy machine may be."""


def stated_minutes(notebook) -> float:
    return notebook.metadata["scaling_nb"]["minutes"]


def lesson(number: str):
    (path,) = [path for path in LESSONS if path.name.startswith(number)]
    return nbformat.read(path, as_version=4)


def test_there_are_eight_lessons_in_order():
    assert [path.name[:2] for path in LESSONS] == [f"0{k}" for k in range(1, 9)]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_no_outputs_and_no_place_of_one_machine_are_kept(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
        assert not any(place in cell.source for place in ("/home/", "/tmp/", "/root/"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_says_how_long_it_takes(path):
    notebook = nbformat.read(path, as_version=4)
    minutes = stated_minutes(notebook)
    assert 0 < 60 * minutes <= MOST_SECONDS
    words = "Less than a minute" if minutes < 1 else f"About {minutes:g} minute"
    assert f"*{words}" in notebook.cells[0].source
    assert "one core" in notebook.cells[0].source


def marks(path):
    slow = () if path.name[:2] in QUICK else (pytest.mark.slow,)
    return (pytest.mark.lesson, *slow)


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=marks(path)) for path in LESSONS]
)
def test_a_lesson_runs_unattended_in_time_and_memory(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    if path.name.startswith("01"):
        assert "quick = False" in notebook.cells[1].source
        notebook.cells[1].source = notebook.cells[1].source.replace("= False", "= True")
    used = execute(notebook, tmp_path)
    with capsys.disabled():
        print(f" [{path.stem}: {used.peak / 1e6:.0f} MB, {used.seconds:.0f} s]", end="")
    assert used.peak < MOST_MEMORY
    assert used.seconds < min(MOST_SECONDS, SLOWNESS * 60 * stated_minutes(notebook))


@pytest.mark.slow
def test_the_first_lesson_in_full_keeps_its_time_too(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    used = execute(lesson("01"), tmp_path)
    assert used.peak < MOST_MEMORY
    assert used.seconds < MOST_SECONDS


BOUGHT = {
    "by slider, no two of equal cost": [
        (10 ** (8 + 0.08 * k), (0.011 + 0.007 * k) * 1e19 / (6 * 10 ** (8 + 0.08 * k)))
        for k in range(9)
    ],
    "a single run": [(2e8, 2e9)],
    "one slice": [(n, 2e17 / (6 * n)) for n in (1e7, 2e7, 4e7, 8e7, 1.6e8, 3.2e8)],
}


@pytest.mark.parametrize("bought", BOUGHT.values(), ids=BOUGHT)
def test_the_game_goes_on_whatever_was_bought(bought, tmp_path):
    notebook = lesson("06")
    (view,) = [cell for cell in notebook.cells if cell.source == "game.view()"]
    view.source = f"for n, d in {bought!r}: game.buy(n, d)"
    done = execute(notebook, tmp_path).notebook
    said = [o.text for cell in done.cells for o in cell.get("outputs", []) if "text" in o]
    assert any(text.startswith(f"{len(bought)} runs, ") for text in said)
    assert any("were wasted" in text for text in said)
