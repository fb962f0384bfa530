import json
from importlib.resources import files

import numpy as np
import pytest

import scaling_nb as snb
from scaling_nb.recordings import recordings

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
