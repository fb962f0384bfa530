"""The watch sees what a kernel and its children take, and ends what takes too much."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from watch import execute


def notebook(*cells: str):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


CHILD = """
import subprocess, sys
code = "x = bytearray({size}); x[::4096] = b'1' * len(x[::4096]); import time; time.sleep(2)"
subprocess.run([sys.executable, "-c", code])
"""


def test_a_childs_memory_counts_and_there_is_one_core(tmp_path):
    used = execute(
        notebook("import os; print(len(os.sched_getaffinity(0)))", CHILD.format(size=200_000_000)),
        tmp_path,
    )
    assert 230e6 < used.peak < 500e6  # the kernel alone takes a fifth of it
    assert used.notebook.cells[0].outputs[0].text == "1\n"


def test_what_takes_too_much_is_killed(tmp_path):
    greedy = notebook(
        "x = bytearray(400_000_000); x[:] = b'1' * len(x); import time; time.sleep(30)"
    )
    with pytest.raises(MemoryError, match="took"):
        execute(greedy, tmp_path, limit=300e6)
