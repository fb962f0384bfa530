"""Published laws against what the papers say of themselves."""

from __future__ import annotations

import numpy as np
import pytest
from referee import needs_referee, reference

import scaling_nb as snb
from scaling_nb.errors import FitError


@pytest.mark.parametrize("name", sorted(snb.published))
def test_every_published_law_answers_with_its_source(name):
    law = snb.published[name]
    answer = law.allocate(1e21)
    assert 1e9 < answer.n_params < 1e10
    assert answer.n_params * answer.n_tokens * 6 == pytest.approx(1e21)
    assert law.status == "published"
    assert "20" in law.source
    n, _ = law.optimal(np.array([1e20, 1e22]))
    assert np.log(n[1] / n[0]) / np.log(100) == pytest.approx(law.exponent_N, rel=1e-6)
    assert law.source.split(",")[0] in str(law)


@pytest.mark.parametrize(
    ("name", "compute", "n_params"),
    [
        # Hoffmann et al. 2022, tables 3 and A3, and their reading of Kaplan et al. 2020.
        ("hoffmann_2022_approach1", 1.92e19, 400e6),
        ("hoffmann_2022_approach1", 1.23e22, 10e9),
        ("hoffmann_2022_approach1", 3.85e24, 175e9),
        ("hoffmann_2022_approach1", 1.27e26, 1e12),
        ("hoffmann_2022_approach2", 1.84e19, 400e6),
        ("hoffmann_2022_approach2", 1.32e22, 10e9),
        ("hoffmann_2022_approach2", 1.18e25, 280e9),
        ("kaplan_2020_frontier", 1e21, 4.68e9),
    ],
)
def test_tables_of_the_papers_are_met(name, compute, n_params):
    assert snb.published[name].allocate(compute).n_params == pytest.approx(n_params, rel=0.035)


def test_approach_3_would_have_made_chinchilla_40_billion():
    answer = snb.published["hoffmann_2022_approach3"].allocate(5.76e23)
    assert answer.n_params == pytest.approx(40e9, rel=0.02)


def test_llama3_extrapolates_to_its_own_plan():
    answer = snb.published["llama3_2024"].allocate(3.8e25)
    assert answer.n_tokens == pytest.approx(16.55e12, rel=0.03)
    assert answer.n_params == pytest.approx(402e9, rel=0.05)


def test_deepseeks_two_formulas_agree():
    compute = 1e22
    answer = snb.published["deepseek_2024"].allocate(compute)
    assert 6 * answer.n_params == pytest.approx(0.1715 * compute**0.5243, rel=1e-3)


def test_kaplans_losses():
    law = snb.published["kaplan_2020"]
    assert law.predict(1e9, 1e15) == pytest.approx((6.4e13 / 1e9) ** 0.076, rel=1e-3)
    assert law.predict(1e15, 1e10) == pytest.approx((1.8e13 / 1e10) ** 0.103, rel=0.01)


def test_without_repeats_the_data_constrained_law_is_chinchillas():
    law = snb.published["muennighoff_2023"]
    p = law.params
    plain = p["E"] + p["A"] * 1e9 ** -p["alpha"] + p["B"] * 1e11 ** -p["beta"]
    assert law.predict(1e9, 1e11) == pytest.approx(plain, rel=1e-9)
    assert law.predict(1e9, 4e11, unique_tokens=1e11) > law.predict(1e9, 4e11)


@needs_referee
def test_besiroglu_is_the_published_point():
    published = reference()["_meta"]["published"]["epoch"]
    law = snb.published["besiroglu_2024"]
    for name, value in law.params.items():
        assert value == published[name]
        low, high = law.intervals[name]
        assert high - low == pytest.approx(2 * 1.6449 * published["se"][name])


@needs_referee
def test_muennighoff_is_the_published_point():
    constants = reference()["_meta"]["data_constrained_182"]
    params = snb.published["muennighoff_2023"].params
    assert np.log(params["A"]) == pytest.approx(constants["fixed"]["a"])
    assert np.log(params["B"]) == pytest.approx(constants["fixed"]["b"])
    assert np.log(params["E"]) == pytest.approx(constants["fixed"]["e"])
    assert params["R_D_star"] == constants["published"]["RD_star"]


def test_conventions_are_said():
    codes = [note.code for note in snb.published["deepseek_2024"].warnings]
    assert "convention" in codes


def test_a_frontier_refuses_no_compute():
    with pytest.raises(FitError, match="positive"):
        snb.published["llama3_2024"].allocate(0)


def test_the_literature_shows_itself():
    frame = snb.published.to_frame()
    assert list(frame["name"]) == list(snb.published)
    assert "arXiv" in repr(snb.published)
    assert snb.published._repr_html_().count("<tr") == len(snb.published) + 1


def test_a_published_power_law_shows_itself():
    every = (snb.published[name] for name in snb.published)
    frontier = next(f for f in every if isinstance(f, snb.FrontierFit))
    html = frontier._repr_html_()
    assert frontier.name in html
    assert "<b>" in html


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(KeyError, match=r"no law is published as 'chinchilla'\. There are: .*besi"):
        snb.published["chinchilla"]
    assert "chinchilla" not in snb.published
    assert snb.published.get("chinchilla") is None


def test_a_frontier_has_a_table_without_losses():
    frame = snb.published["llama3_2024"].chinchilla_table([1e21, 1e22])
    assert frame["n_params"].tolist() == [
        snb.published["llama3_2024"].allocate(c).n_params for c in (1e21, 1e22)
    ]
    text = snb.published["llama3_2024"].chinchilla_table(format="markdown")
    assert "| – |" in text
    assert "nan" not in text
