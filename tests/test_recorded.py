import dataclasses
import importlib.util
import json
import re
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import scaling_nb as snb
from scaling_nb.recordings import Recording, recordings

NAMES = sorted(recordings())


def test_the_quick_start_is_recorded_with_three_seeds():
    runs = snb.recorded("stdlib-gpt")
    assert len(runs) == 90
    assert set(runs.column("seed")) == {0.0, 1.0, 2.0}
    assert len(set(runs.column("budget"))) == 5
    fit = snb.fit_isoflop(runs)
    assert len(fit.optima) == 5
    assert 0.45 < fit.exponent_N < 0.7


@pytest.mark.parametrize("name", NAMES)
def test_every_recording_is_whole_and_says_how_it_was_made(name):
    runs, how = snb.recorded(name), recordings()[name]
    assert np.isfinite(runs.L).all()
    assert (runs.column("budget") >= runs.C).all()
    assert set(runs.column("size")) <= set(how.recipe["d_model"])
    assert set(runs.column("budget")) == set(how.recipe["budgets"])
    assert how.command == f"python benchmarks/record_sweep.py {name}"
    assert {"python", "torch", "numpy", "scaling_nb"} <= set(how.versions)
    assert any(how.command in note for note in runs.notes)
    page = files("scaling_nb").joinpath("recorded", f"{name}.json").read_text(encoding="utf-8")
    assert not any(place in page for place in ("/home", "/tmp", "/root", "/work"))
    assert json.loads(page)["name"] == name


@pytest.mark.parametrize("name", NAMES)
def test_seeds_of_one_cell_agree_within_a_few_per_cent(name):
    frame = snb.recorded(name).to_frame()
    spread = frame.groupby(["budget", "size"])["loss"].agg(lambda x: x.max() / x.min() - 1)
    assert spread.max() < 0.06


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(snb.RunsError, match="stdlib-gpt"):
        snb.recorded("llama")


def test_a_new_recording_notes_commit_processor_and_executor():
    script = Path(__file__).parents[1] / "benchmarks" / "record_sweep.py"
    spec = importlib.util.spec_from_file_location("record_sweep", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules["record_sweep"] = module
    spec.loader.exec_module(module)
    assert re.fullmatch(r"\S+", module.commit())
    assert module.cpu_model()
    noted = set(re.findall(r'^        "(\w+)": ', script.read_text(), flags=re.M))
    known = {f.name for f in dataclasses.fields(Recording)}
    assert {"commit", "executor", "machine"} <= noted & known
