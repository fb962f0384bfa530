"""Every lesson runs top to bottom, unattended, on one thread, and keeps within 2 GB."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
LESSONS = sorted(FOLDER.glob("*.ipynb"))
QUICK = ("03", "06", "08")
MOST_MEMORY = 1.2e9

REPORT = """
import json, os, pathlib, resource, sys
status = pathlib.Path("/proc/self/status")
if status.exists():  # ru_maxrss would be that of the process which this kernel was forked from
    peak = 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak": peak, "cpu": sum(os.times()[:2])}))
"""


def execute(path: Path, folder: Path) -> dict[str, float]:
    """Run one notebook in a kernel of its own; return its peak memory, bytes, and CPU seconds."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(REPORT))
    client = NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(folder)}}, kernel_name="python3"
    )
    client.execute()
    return json.loads(notebook.cells[-1].outputs[0].text)


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


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if path.name[:2] in QUICK else pytest.mark.slow)
        for path in LESSONS
    ],
)
def test_a_lesson_runs_unattended_in_little_memory(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    used = execute(path, tmp_path)
    with capsys.disabled():
        print(f" [{path.stem}: {used['peak'] / 1e6:.0f} MB, {used['cpu']:.0f} s of CPU]", end="")
    assert used["peak"] < MOST_MEMORY
