"""The Binder image: every dependency is in its recipe, and nothing brings a second torch."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
BINDER = ROOT / "binder"
ELSEWHERE = {"torch": "pytorch-cpu"}


def names(requirements):
    return {re.split(r"[<>=!~\[ ]", text)[0].lower() for text in requirements}


def environment():
    return yaml.safe_load((BINDER / "environment.yml").read_text())


def test_every_dependency_of_the_package_is_in_the_image():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {ELSEWHERE.get(name, name) for name in names(project["dependencies"])}
    listed = environment()["dependencies"]
    by_conda = names(item for item in listed if isinstance(item, str))
    by_pip = names(item for group in listed if isinstance(group, dict) for item in group["pip"])
    assert wanted <= by_conda | by_pip
    assert "torch" not in by_conda | by_pip


def test_conda_and_the_package_ask_for_the_same_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {re.sub(r"^torch>", "pytorch-cpu>", text) for text in project["dependencies"]}
    listed = environment()["dependencies"]
    given = {text for text in listed if isinstance(text, str)}
    given |= {text for group in listed if isinstance(group, dict) for text in group["pip"]}
    assert asked <= given


def test_the_channels_are_free():
    assert environment()["channels"] == ["conda-forge", "nodefaults"]


def test_the_package_is_installed_without_its_dependencies():
    script = BINDER / "postBuild"
    assert os.access(script, os.X_OK)
    assert "pip install --no-deps" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)


def test_the_images_lesson_has_its_data():
    assert "dataset-fashion-mnist" in (BINDER / "apt.txt").read_text().split()
