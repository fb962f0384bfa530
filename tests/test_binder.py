"""The Binder image: every dependency is in its recipe, and nothing brings a second torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
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


RECIPE = """FROM docker.io/library/buildpack-deps:24.04
COPY --chown=0:0 src/binder/environment.yml ${REPO_DIR}/binder/environment.yml
RUN apt-get -qq update && \\
apt-get install --yes --no-install-recommends dataset-fashion-mnist && \\
apt-get -qq purge
bash -c 'time ${MAMBA_EXE} env update -p ${NB_PYTHON_PREFIX} --file "binder/environment.yml"
RUN chmod +x binder/postBuild
RUN ./binder/postBuild
"""


def checked(recipe):
    script = ROOT / ".ci" / "check_binder_recipe"
    return subprocess.run(
        [sys.executable, script], input=recipe, text=True, capture_output=True, check=False
    )


def test_a_whole_recipe_passes():
    done = checked(RECIPE)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "part",
    ["FROM", "COPY", "dataset-fashion-mnist", "env update", "RUN chmod", "RUN ./binder/postBuild"],
)
def test_a_recipe_without_a_part_is_refused(part):
    lines = [line for line in RECIPE.splitlines() if part not in line]
    done = checked("\n".join(lines))
    assert done.returncode == 1
    assert done.stdout.startswith("The recipe ")


def test_ci_makes_the_recipe_in_an_environment_of_its_own():
    steps = (ROOT / ".ci" / "run").read_text()
    made = 'jupyter-repo2docker" --no-build --debug . 2>&1 | .ci/check_binder_recipe'
    assert f'"$recipe/venv/bin/{made}' in steps
    assert "repo2docker" not in (ROOT / "pyproject.toml").read_text()
