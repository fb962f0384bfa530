from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import scaling_nb as snb
from scaling_nb.plots import (
    Notes,
    answer_sentence,
    fit_report,
    html_report,
    plot_isoflop,
    sweep_report,
)
from scaling_nb.plots.report import allocation_table
from scaling_nb.simulation import IsoFlopDesign, simulate_curves

LAW = snb.published["besiroglu_2024"]


@pytest.fixture(scope="module")
def runs():
    return snb.simulate(LAW, IsoFlopDesign(budgets=(1e18, 1e19, 1e20), n_sizes=7), 0.003, 0)


@pytest.fixture(scope="module")
def iso(runs):
    return snb.fit_isoflop(runs, bootstrap=100)


def without_library(page):
    """Return the page without plotly.js itself, whose source names many addresses."""
    return re.sub(r"<script>.{1000000,}?</script>", "", page, count=1, flags=re.DOTALL)


def test_a_page_holds_everything_once(iso):
    sections = [
        ("One", ["x < y", plot_isoflop(iso)]),
        ("Two", [plot_isoflop(iso)]),
        ("None", []),
    ]
    page = html_report("A & B", sections)
    assert page.count("plotly.js v") == html_report("", []).count("plotly.js v") >= 1
    assert "A &amp; B" in page
    assert "x &lt; y" in page
    assert page.count("Plotly.newPlot(") >= 2
    assert "<h2>None</h2>" not in page


def test_a_page_fetches_nothing(iso):
    page = without_library(html_report("t", [("", [plot_isoflop(iso)])]))
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert "cdn" not in page


def test_parts_are_escaped_tabled_and_noted():
    frame = pd.DataFrame({"run": ["<b>"], "loss": [3.14159265]})
    page = without_library(
        html_report("t", [("h", [frame, Notes(title="Mind", sentences=("a<b",))])])
    )
    assert "&lt;b&gt;" in page
    assert "3.142" in page
    assert "<li>a&lt;b</li>" in page


def test_the_answer_is_a_sentence_with_intervals(iso):
    sentence = answer_sentence(iso.allocate(1e21))
    assert sentence.startswith("For C = 1e21 FLOP: N = ")
    assert sentence.count(" to ") == 3
    assert "10 times the largest run" in sentence
    assert "nan" not in answer_sentence(snb.published["llama3_2024"].allocate(1e21))


def test_the_allocation_table_shows_intervals_in_words(iso):
    table = allocation_table(iso, [1e20, 1e21])
    assert list(table["C (FLOP)"]) == ["1e20", "1e21"]
    assert re.fullmatch(r"[\d.]+ [MB] \([\d.]+ [MB] to [\d.]+ [MB]\)", table["N* (parameters)"][0])


def test_a_fit_report_says_answer_doubts_and_evidence(runs, iso, tmp_path):
    law = snb.fit_law(runs, bootstrap=100)
    cut = runs.exclude(runs.run_ids[0], reason="a reason to see")
    page = without_library(
        fit_report(cut, [law, iso], target=1e22, title="T", path=tmp_path / "r.html",
                   curves=simulate_curves(LAW, [1e8], 1e10), notes=["hello there"])
    )  # fmt: skip
    assert (tmp_path / "r.html").stat().st_size > 1e6
    for text in ("For C = 1e22 FLOP", "hello there", "a reason to see",
                 "IsoFLOP curves", "Loss surface", "Residuals", "Loss while training",
                 cut.data_hash, "100 times the compute of the largest run"):  # fmt: skip
        assert text in page


def test_a_report_without_an_optimum_still_explains(runs):
    smallest = runs.where(budget=1e18)
    fit = snb.fit_isoflop(smallest)
    page = without_library(fit_report(smallest, [fit], target=1e21))
    assert "a power law needs two" in page
    assert "IsoFLOP curves" in page


def test_a_sweep_report_draws_the_stored_curves(iso, runs):
    tokens, loss = np.array([1, 2, 2, 3]), np.array([4.0, 3.5, 3.4, 3.0], dtype=np.float32)
    table = iso.chinchilla_table([1e20, 1e21])
    page = without_library(
        sweep_report(iso, {runs.run_ids[0]: (tokens, loss)}, table, title="Sweep")
    )
    assert "For C = 1e21 FLOP" in page
    assert runs.run_ids[0] in page
    assert "Loss while training" in page
    assert "Sweep" in without_library(sweep_report(iso, {}, None, title="Sweep"))


def test_a_number_and_its_interval_stay_on_one_line(iso):
    page = without_library(fit_report(iso.runs, [iso], target=1e21))
    table = allocation_table(iso)
    cells = [cell for name in list(table)[1:] for cell in table[name]]
    assert any("(" in cell for cell in cells)
    for cell in cells:
        assert "(" not in cell or f'<span class="whole">{cell}</span>' in page
    assert re.search(r"N = <span class=\"whole\">", page)
    assert ".whole { white-space: nowrap; }" in page


def test_an_interval_below_a_thousandth_is_not_nothing(iso):
    answer = replace(iso.allocate(1e21), loss=3.1e-4)
    answer = replace(answer, intervals={**answer.intervals, "loss": (2.9e-4, 3.4e-4)})
    assert "loss 0.00031 (0.00029 to 0.00034)" in answer_sentence(answer)
