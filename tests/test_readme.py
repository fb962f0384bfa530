"""What the README says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_it_has_the_two_commands_each_on_one_line():
    commands = [block.strip() for block in blocks("bash")]
    assert commands == [
        "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e . && "
        ".venv/bin/python -m scaling_nb quickstart",
        'python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ".[test]" && '
        ".venv/bin/pytest -n 2 --dist loadfile",
    ]


def test_ci_calls_its_test_command():
    search = "grep -m1 -E '^python3 -m venv .*pytest( |$)' README.md"
    assert search in (ROOT / ".ci/run").read_text()


def test_every_file_it_names_is_there():
    for name in re.findall(r"\]\((\w[^):]+)\)", README) + ["notebooks/01_quickstart.ipynb"]:
        assert (ROOT / name).exists(), name


def test_every_pinned_version_installs_on_the_oldest_python_that_is_promised():
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    assert "scaling_nb" not in pins
    checked = []
    for found in metadata.distributions():
        name = found.metadata["Name"]
        needs = found.metadata["Requires-Python"]
        if pins.get(name) == found.version and needs:
            assert SpecifierSet(needs).contains("3.11.0"), (name, found.version, needs)
            checked.append(name)
    assert len(checked) > len(pins) / 2


def test_its_code_runs_as_it_stands(tmp_path):
    (code,) = blocks("python")
    script = code.replace("result.plot().show()", "result.plot()")
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"parameters N +\S+ +\(90 ?%: \S+ to \S+\)", done.stdout)
