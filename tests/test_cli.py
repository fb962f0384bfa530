from __future__ import annotations

import pytest

from scaling_nb import RunStore, read_plan
from scaling_nb.__main__ import main

RECIPE = """
import numpy as np
from torch import nn
import scaling_nb as snb

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, width), nn.Linear(width, 5)
    def forward(self, x):
        return self.head(self.embedding(x))

recipe = snb.Recipe(Net, size="width", sizes=[2, 4, 8, 16], dataset=np.arange(90_000) % 5,
                    batch_size=4, tokens_per_sample=8, optimizer={"lr": 1e-2}, eval_tokens=64)
not_a_recipe = 3
"""


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(RECIPE)
    return path


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for command in ("quickstart", "plan", "run", "fit", "resume"):
        assert command in out


def test_plan_shows_runs_and_cost_and_trains_nothing(recipe_file, capsys):
    assert main(["plan", f"{recipe_file}:recipe", "--budgets", "5e5", "1e6"]) == 0
    out = capsys.readouterr().out
    assert "runs of Net: width 2 to 16" in out
    assert "kWh" in out


def test_plan_of_ones_own_recipe_needs_budgets(recipe_file, capsys):
    assert main(["plan", f"{recipe_file}:recipe"]) == 2
    assert "--budgets is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine", "names no recipe. Give FILE.py:NAME"),
        ("nowhere.py:recipe", "there is no file nowhere.py"),
        ("{file}:missing", "missing in .* is missing. It must be a Recipe"),
        ("{file}:not_a_recipe", "is int. It must be a Recipe"),
    ],
)
def test_what_is_no_recipe_is_a_sentence_not_a_traceback(recipe_file, capsys, name, message):
    assert main(["plan", name.format(file=recipe_file), "--budgets", "1e6"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    import re

    assert re.search(message, error)


def test_ctrl_c_before_training_is_a_sentence(recipe_file, capsys, monkeypatch):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("scaling_nb.__main__._load_recipe", interrupt)
    assert main(["plan", f"{recipe_file}:recipe", "--budgets", "1e6"]) == 130
    assert "stopped. What was trained is kept" in capsys.readouterr().err


def test_infeasible_budgets_are_a_sentence(recipe_file, capsys):
    assert main(["plan", f"{recipe_file}:recipe", "--budgets", "1"]) == 1
    assert "Budgets from" in capsys.readouterr().err


def test_resume_goes_on_with_a_store(recipe_file, tmp_path, capsys, monkeypatch):
    import runpy

    import scaling_nb as snb

    recipe = runpy.run_path(str(recipe_file))["recipe"]
    plan = snb.plan_sweep(recipe, [1e6, 2e6, 4e6], tokens_per_param=(0, 1e9), max_epochs=99,
                          min_steps=10)  # fmt: skip
    sweep = snb.Sweep(recipe, plan, store=tmp_path / "runs.db")
    sweep.store.save_sweep(plan, recipe.parts())
    sweep.store.close()
    assert main(["resume", str(tmp_path / "runs.db"), f"{recipe_file}:recipe"]) == 0
    assert f"wrote {tmp_path / 'report.html'}" in capsys.readouterr().out


def test_a_plan_travels_as_a_file_and_is_trained_without_a_notebook(recipe_file, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    words = ["plan", f"{recipe_file}:recipe", "--budgets", "5e5", "1e6", "--out", str(plan)]
    assert main(words) == 0
    assert f"python -m scaling_nb run {plan}" in capsys.readouterr().out
    assert main(["run", str(plan), "--executor", "inline"]) == 0
    assert (tmp_path / "report.html").exists()
    with RunStore(plan.with_suffix(".db")) as store:
        finished = [run for run in store.runs().values() if run.status == "finished"]
    assert len(finished) == len(read_plan(plan)[0].runs)


@pytest.mark.slow
def test_a_plan_is_trained_on_a_cluster(recipe_file, tmp_path):
    plan = tmp_path / "plan.json"
    words = ["plan", f"{recipe_file}:recipe", "--budgets", "5e5", "1e6", "--out", str(plan)]
    assert main(words) == 0
    assert main(["run", str(plan), "--executor", "ray", "--storage", f"{tmp_path}/shared"]) == 0
    with RunStore(plan.with_suffix(".db")) as store:
        finished = [run for run in store.runs().values() if run.status == "finished"]
    assert len(finished) == len(read_plan(plan)[0].runs)


def test_a_plan_of_another_recipe_is_refused(recipe_file, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    main(["plan", f"{recipe_file}:recipe", "--budgets", "5e5", "1e6", "--out", str(plan)])
    recipe_file.write_text(RECIPE.replace("batch_size=4", "batch_size=8"))
    assert main(["run", str(plan)]) == 1
    assert "made from another recipe" in capsys.readouterr().err


def test_what_is_no_plan_says_so(tmp_path, capsys):
    other = tmp_path / "plan.json"
    other.write_text("[1, 2]")
    assert main(["run", str(other)]) == 1
    assert "is no plan" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "none.json")]) == 1
    assert "none.json" in capsys.readouterr().err
