"""Where D counts no tokens, every table, answer, axis and control says what it counts."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

import scaling_nb as snb
from scaling_nb.__main__ import main
from scaling_nb.checks import LrCheck, RateCell
from scaling_nb.plan import SweepPlan
from scaling_nb.plots import plot_curves, plot_frontier, plot_isoflop, plot_residuals, plot_surface
from scaling_nb.plots.comparison import plot_comparison
from scaling_nb.plots.report import fit_report
from scaling_nb.plots.still import isoflop_svg
from scaling_nb.simulation import IsoFlopDesign, simulate_curves

LAW = snb.published["besiroglu_2024"]
DESIGN = IsoFlopDesign(budgets=(1e18, 1e19, 1e20), n_sizes=7)


@pytest.fixture(scope="module")
def images():
    return dataclasses.replace(snb.simulate(LAW, DESIGN, 0.003, 0), unit="images")


@pytest.fixture(scope="module")
def fits(images):
    return snb.fit_isoflop(images, bootstrap=50), snb.fit_law(images, bootstrap=20)


def test_a_table_keeps_its_unit(images):
    for table in (
        images.where(budget=1e19),
        images.exclude(images.run_ids[0], reason="a look"),
        images.with_budgets(),
        snb.RunTable.from_frame(images.to_frame()),
        snb.RunTable.from_runs(images, unit="images"),
    ):
        assert table.unit == "images"
    assert " images" in repr(images)
    assert " images" in images._repr_html_()
    assert not re.search("token|nats", repr(images))


def test_a_csv_carries_the_unit_and_comes_back_unchanged(images, tmp_path):
    images.to_csv(tmp_path / "runs.csv")
    back = snb.RunTable.from_csv(tmp_path / "runs.csv")
    assert back.unit == "images"
    assert back.data_hash == images.data_hash
    assert dict(back.columns).keys() == dict(images.columns).keys()
    pd.testing.assert_frame_equal(back.to_frame(), images.to_frame())


def test_a_table_of_tokens_is_written_as_ever(images):
    tokens = dataclasses.replace(images, unit="tokens")
    assert list(tokens.to_frame()) == list(tokens.columns)
    assert tokens.data_hash == images.data_hash
    assert tokens.unit == snb.recorded("stdlib-gpt").unit
    assert " tokens\n" in repr(tokens)
    assert repr(tokens).endswith(" nats")


def test_a_table_of_ones_own_may_have_a_column_of_units(tmp_path):
    frame = pd.DataFrame({"N": [1e8, 2e8], "D": [2e9, 4e9], "loss": [3.1, 2.9], "unit": "bits"})
    table = snb.RunTable.from_frame(frame)
    assert table.unit == "tokens"
    assert list(table.column("unit")) == ["bits", "bits"]
    frame.to_csv(tmp_path / "runs.csv", index=False)
    assert snb.RunTable.from_csv(tmp_path / "runs.csv", unit="rows").unit == "rows"


@pytest.mark.parametrize("words", [["rows", "images"], ["rows", None]])
def test_one_table_counts_one_thing(words):
    frame = pd.DataFrame({"N": [1e8, 2e8], "D": [2e9, 4e9], "loss": [3.1, 2.9], "D_unit": words})
    with pytest.raises(snb.RunsError, match="D_unit says '(images)?', 'rows', but"):
        snb.RunTable.from_frame(frame)
    assert snb.RunTable.from_frame(frame, unit="rows").unit == "rows"


@pytest.mark.parametrize("unit", ["", " ", 3])
def test_a_unit_is_a_word(images, unit):
    with pytest.raises(snb.RunsError, match='such as "images"'):
        dataclasses.replace(images, unit=unit)


def test_doubts_about_units_are_of_the_unit():
    with pytest.warns(snb.ScalingWarning, match="training rows") as told:
        snb.RunTable.from_frame(
            pd.DataFrame({"N": [1e8, 2e8], "D": [20.0, 40], "loss": [310.0, 290]}), unit="rows"
        )
    assert not any("token" in str(warning.message) for warning in told)


def test_answers_and_tables_name_it(fits):
    iso, law = fits
    for fit in (iso, law, snb.LawFit.from_json(law.to_json())):
        answer = fit.allocate(1e21)
        assert answer.unit == fit.unit == "images"
        assert "images D" in str(answer)
        assert "images/parameter" in answer._repr_html_()
        assert "token" not in f"{answer}{fit}{fit._repr_html_()}"
        assert "| D (images) |" in fit.chinchilla_table([1e21], format="markdown")
    capped = law.allocate(1e21, max_tokens=1e9)
    assert "unique images" in str(capped)
    assert "token" not in str(capped)


def test_a_fit_that_was_written_before_units_is_of_tokens(fits):
    older = json.loads(fits[1].to_json())
    del older["scope"]["unit"]
    assert snb.LawFit.from_json(json.dumps(older)).unit == "tokens"
    assert LAW.unit == LAW.allocate(1e21).unit == "tokens"


def test_an_envelope_names_what_its_curves_count():
    sizes = np.geomspace(1e7, 1e9, 9)
    curves = simulate_curves(LAW, sizes, 1e11, noise=0.001)
    curves = [dataclasses.replace(curve, unit="images") for curve in curves]
    assert snb.fit_envelope(curves, bootstrap=0).allocate(1e19).unit == "images"


def test_an_envelope_of_trunks_names_what_their_table_counts(images):
    budgets = np.repeat([1e18, 1e19, 1e20], 7)
    sizes = np.tile(np.geomspace(1e7, 1e9, 7), 3)
    loss = LAW.law.predict(LAW.params, sizes, budgets / 6 / sizes)
    runs = snb.RunTable.from_frame(
        pd.DataFrame({"N": sizes, "D": budgets / 6 / sizes, "C": budgets, "loss": loss,
                      "schedule": "wsd", "group": [f"{n:g}" for n in sizes]}), unit="images",
    )  # fmt: skip
    assert snb.fit_envelope(runs).unit == "images"
    assert "images" in str(snb.fit_envelope(runs).allocate(1e19))


def test_its_column_is_found_however_it_is_written_and_may_be_empty(tmp_path):
    frame = pd.DataFrame({"N": [1e8, 2e8], "D": [2e9, 4e9], "loss": [3.1, 2.9]})
    for name, word, unit in (("d_unit", "rows", "rows"), ("D_unit", "", "tokens")):
        frame.assign(**{name: word}).to_csv(tmp_path / "a.csv", index=False)
        assert snb.RunTable.from_csv(tmp_path / "a.csv").unit == unit


def test_figures_and_the_report_name_it(images, fits):
    iso, law = fits
    curves = [
        dataclasses.replace(curve, unit="images")
        for curve in simulate_curves(LAW, [1e8, 3e8], 1e11, noise=0.001)
    ]
    compared = snb.compare(images, bootstrap=0)
    named = [
        plot_surface(law),
        plot_frontier(iso, quantity="n_tokens"),
        plot_frontier(law, quantity="tokens_per_param"),
        plot_residuals(law, "D"),
        plot_curves(curves),
        plot_comparison(compared, "n_tokens"),
    ]
    silent = [
        plot_isoflop(iso),
        plot_frontier(iso, quantity="loss"),
        plot_residuals(law, "L"),
        plot_comparison(compared, "loss"),
    ]
    for figure in (*named, *silent):
        layout = figure.layout
        said = f"{layout.title.text} {layout.xaxis.title.text} {layout.yaxis.title.text}"
        assert "token" not in said
        assert ("images" in said) == (figure in named)
    assert "token" not in isoflop_svg(iso)
    page = fit_report(images, [iso, law], target=1e21, curves=curves)
    page = page[page.index("<h1>") :]
    assert "images per parameter" in page
    assert "D in images, C in FLOP." in page
    assert not re.search(r"\btokens?\b", page)


def test_the_command_line_takes_and_prints_it(images, tmp_path, capsys):
    csv = tmp_path / "runs.csv"
    dataclasses.replace(images, unit="tokens").to_csv(csv)
    assert main(["fit", str(csv), "--unit", "rows", "--target", "1e21", "--bootstrap", "0"]) == 0
    said = capsys.readouterr().out
    assert "rows D" in said
    assert "token" not in said
    pd.read_csv(csv).assign(D_unit=["rows"] * 9 + ["images"] * 12).to_csv(csv, index=False)
    assert main(["fit", str(csv)]) == 1
    assert "count: --unit images." in capsys.readouterr().err


def test_a_rate_check_counts_in_the_recipes_unit():
    cell = RateCell(size=4, n_tokens=800, factors=(0.5, 1.0, 2.0), losses=(1.2, 1.0, 1.1))
    check = LrCheck(size_name="width", cells=(cell,), unit="rows")
    assert "800 rows" in str(check)
    assert "token" not in f"{check}{check.plot().to_json()}"


class Line(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.hidden = torch.nn.Linear(4, width)
        self.out = torch.nn.Linear(width, 1)

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x)))


@pytest.fixture
def rows():
    data = torch.utils.data.TensorDataset(torch.randn(40_000, 4), torch.randn(40_000, 1))
    return snb.Recipe(
        Line, size="width", sizes=[2, 4, 8], dataset=data, batch_size=8, unit="rows",
        loss_fn=torch.nn.MSELoss(), optimizer={"lr": 1e-2},
    )  # fmt: skip


def test_a_recipe_says_what_D_counts_and_stays_the_same_recipe(rows):
    unnamed = dataclasses.replace(rows, unit="")
    assert (unnamed.unit, rows.unit) == ("samples", "rows")
    assert unnamed.recipe_id == rows.recipe_id
    with pytest.raises(snb.RecipeError, match="unit is 3"):
        dataclasses.replace(rows, unit=3)


def test_it_goes_from_the_recipe_through_the_store_to_the_runs(rows, tmp_path):
    plan = snb.plan_sweep(rows, [4e5], min_steps=10, tokens_per_param=(0, 1e9))
    assert plan.unit == "rows"
    assert "rows_per_param" in repr(plan)
    sweep = snb.Sweep(rows, plan, store=tmp_path / "runs.db", executor="inline").start()
    sweep.wait()
    assert sweep.runs.unit == "rows"
    sweep.store.close()
    with snb.RunStore(tmp_path / "runs.db") as store:
        assert store.load_sweep().plan.unit == "rows"


def test_a_plan_that_was_stored_before_units_takes_its_recipes(rows):
    plan = snb.plan_sweep(rows, [4e5], min_steps=10, tokens_per_param=(0, 1e9))
    older = json.loads(json.dumps(plan.to_dict()))
    del older["unit"]
    stored = SweepPlan.from_dict(older)
    assert stored.unit == "tokens"
    assert stored.plan_id == plan.plan_id
    assert dataclasses.replace(stored, recipe=rows).unit == "rows"


def test_a_recipes_unit_is_a_word(rows):
    assert dataclasses.replace(rows, unit=" rows ").unit == "rows"
    with pytest.raises(snb.RecipeError, match="Say what D counts"):
        dataclasses.replace(rows, unit=" ")
