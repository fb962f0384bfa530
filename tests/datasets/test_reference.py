"""What docs/data.md says of each data set is what is read: size, licence and content hash."""

from __future__ import annotations

import inspect
import platform
import re
from pathlib import Path

import pytest

import scaling_nb as snb
from scaling_nb import datasets

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("` "): cells
    for cells in (
        [c.strip() for c in line.strip("|").split("|")]
        for line in PAGE.splitlines()
        if line.startswith("| `") and "snb.datasets" not in line
    )
}
SETS = [name for name in datasets.__all__ if not name[0].isupper()]
FIXED = ["digits()", "patterns()", "synthetic()", "teacher()"]
PYTHON = ["stdlib_text()", "stdlib_text(512)"]
LICENCES = r"PSF-2\.0|CDLA-Sharing-1\.0|licence|CC BY 4\.0|CC0|MIT"


def read(call: str):
    name, argument = re.fullmatch(r"(\w+)\((\d*)\)", call).groups()
    return getattr(datasets, name)(*([int(argument)] if argument else []))


def test_every_set_has_a_row():
    assert {row.split("(")[0] for row in ROWS} == set(SETS)
    assert all(len(cells) == 6 and all(cells) for cells in ROWS.values())


@pytest.mark.parametrize("name", SETS)
def test_a_docstring_says_licence_and_split(name):
    text = inspect.getdoc(getattr(datasets, name))
    assert re.search(LICENCES, text)
    assert re.search(r"held[ -]out|validation", text)


@pytest.mark.parametrize("call", [*FIXED, *PYTHON])
def test_a_set_is_what_the_page_says(call):
    if call == "digits()":
        pytest.importorskip("sklearn")
    if call in PYTHON and platform.python_version() != "3.11.7":
        pytest.skip("the page's numbers are of CPython 3.11.7's standard library")
    data, cells = read(call), ROWS[call]
    assert data.content_hash in cells[5]
    n = data.unique_tokens if hasattr(data, "vocab_size") else data.unique_samples
    assert f"{n:,}" in cells[3]
    licence = data.licence.replace("CC-BY-4.0", "CC BY 4.0").replace("CC0-1.0", "CC0 1.0")
    assert cells[2] == licence


def test_patches_are_counted_as_the_page_says():
    assert f"{datasets.patterns().unique_tokens(7):,}" in ROWS["patterns()"][3]
    pytest.importorskip("sklearn")
    assert f"{datasets.digits().unique_tokens(2):,}" in ROWS["digits()"][3]


def test_fashion_mnist_where_it_is_installed():
    try:
        data = datasets.fashion_mnist(download=False)
    except snb.DataError:
        pytest.skip("Fashion-MNIST is not on this machine")
    assert (len(data.train), len(data.held_out), data.licence) == (60_000, 10_000, "MIT")
