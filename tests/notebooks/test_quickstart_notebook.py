"""The quick-start notebook runs top to bottom, unattended, and shows what it promises."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_quickstart.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    switch = next(cell for cell in notebook.cells if "quick = False" in cell.source)
    switch.source = switch.source.replace("quick = False", "quick = True")
    folder = tmp_path_factory.mktemp("lesson")
    client = NotebookClient(
        notebook, timeout=240, resources={"metadata": {"path": str(folder)}}, kernel_name="python3"
    )
    return client.execute()


def outputs(notebook, kind):
    return [
        output.data[kind]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if kind in output.get("data", {})
    ]


# The plotly figure of a later cell needs a page with plotly; what the panel leaves does not.
@pytest.mark.filterwarnings("ignore:Your element with mimetype")
def test_the_panel_is_shown_and_leaves_a_result_that_needs_no_kernel(executed):
    assert len(outputs(executed, "application/vnd.jupyter.widget-view+json")) == 1
    left = outputs(executed, "text/html")[0]
    assert "For C = 1e13 FLOP: N =" in left
    assert "<table" in left
    assert "IsoFLOP curves" in outputs(executed, "image/svg+xml")[0]
    page, _ = HTMLExporter().from_notebook_node(executed)
    assert "For C = 1e13 FLOP: N =" in page
    assert "IsoFLOP curves and their minima</title>" in page or "data:image/svg+xml" in page


def test_the_same_in_python_draws_and_answers_with_an_interval(executed):
    assert len(outputs(executed, "application/vnd.plotly.v1+json")) == 1
    answer = outputs(executed, "text/plain")[-1]
    assert "parameters N" in answer
    assert "(90 %: " in answer


def test_the_kernel_is_free_while_it_trains(executed):
    status = next(cell for cell in executed.cells if "print(dash.sweep.status())" in cell.source)
    assert "running: " in status.outputs[0].text
