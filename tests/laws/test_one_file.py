"""The file that lesson 08 writes, put into laws/: found there, and held by every contract test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]


def lesson_law() -> str:
    notebook = nbformat.read(ROOT / "notebooks" / "08_your_own_law.ipynb", as_version=4)
    (cell,) = [c for c in notebook.cells if c.source.startswith("%%writefile common_exponent.py")]
    return cell.source.split("\n", 1)[1]


def contract(folder: Path) -> subprocess.CompletedProcess[str]:
    shutil.copytree(
        ROOT / "scaling_nb",
        folder / "scaling_nb",
        ignore=shutil.ignore_patterns("__pycache__"),
        dirs_exist_ok=True,
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", "CommonExponent",
         str(ROOT / "tests" / "laws" / "test_contract.py")],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_the_lessons_file_alone_adds_a_law_that_every_contract_test_holds(tmp_path):
    (tmp_path / "scaling_nb" / "laws").mkdir(parents=True)
    (tmp_path / "scaling_nb" / "laws" / "common_exponent.py").write_text(lesson_law())
    done = contract(tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 10
    used = subprocess.run(
        [sys.executable, "-c", "import scaling_nb as snb; print(snb.laws.CommonExponent().formula, "
         "snb.laws.law_from_spec({'law': 'CommonExponent'}).name)"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert used.stdout.strip() == "L = E + (A / N + B / D)^gamma common-exponent law"


def test_a_wrong_law_in_that_folder_is_found_wrong(tmp_path):
    (tmp_path / "scaling_nb" / "laws").mkdir(parents=True)
    wrong = lesson_law().replace("alpha=one", "alpha=2 * one")
    (tmp_path / "scaling_nb" / "laws" / "common_exponent.py").write_text(wrong)
    done = contract(tmp_path)
    assert done.returncode == 1
    assert "test_the_frontier_is_where_the_loss_is_least" in done.stdout
