"""Figures: the typed values they show, and what is drawn of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import plotly.graph_objects as go
import pytest

import scaling_nb as snb
from scaling_nb.errors import FitError
from scaling_nb.plots import (
    comparison_bars,
    curve_lines,
    frontier,
    isoflop_curves,
    plot_bootstrap,
    plot_comparison,
    plot_curves,
    plot_frontier,
    plot_isoflop,
    plot_profile,
    plot_residuals,
    plot_surface,
    residuals,
    surface_view,
)
from scaling_nb.plots.style import COLOURS, INK, PAPER, count, log_ticks, marker, measure
from scaling_nb.simulation import IsoFlopDesign, RandomDesign, simulate_curves

LAW = snb.published["besiroglu_2024"]


@pytest.fixture(scope="module")
def runs():
    design = IsoFlopDesign(budgets=(1e18, 1e19, 1e20, 1e21), n_sizes=7)
    table = snb.simulate(LAW, design, 0.003, 0)
    largest = table.where(budget=1e21)
    cut = [i for i, n in zip(largest.run_ids, largest.N, strict=True) if n > np.median(largest.N)]
    return table.exclude(cut, reason="to leave one budget without a minimum")


@pytest.fixture(scope="module")
def iso(runs):
    return snb.fit_isoflop(runs, bootstrap=200)


@pytest.fixture(scope="module")
def law(runs):
    return snb.fit_law(runs, bootstrap=200)


def luminance(text):
    channels = [int(text[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("paper", ["#ffffff", "#111111"])
def test_text_and_colours_are_readable_on_light_and_dark(paper):
    def contrast(ink):
        pair = sorted([luminance(ink), luminance(paper)])
        return (pair[1] + 0.05) / (pair[0] + 0.05)

    assert contrast(INK) > 4.0
    assert min(contrast(colour) for colour in COLOURS) > 2.2


def test_a_figure_alone_brings_its_paper_so_that_its_text_is_read_in_any_theme(law):
    layout = snb.plots.plot_residuals(law).layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == PAPER
    ink, paper = luminance(layout.font.color), luminance(PAPER)
    assert (paper + 0.05) / (ink + 0.05) > 7


@pytest.mark.parametrize(
    ("value", "words"),
    [(3.6341, "3.634"), (0.00041234, "0.000412"), (50222, "50,222"), (45.13, "45.1"), (0, "0"),
     (3.2e9, "3.2e+09")],
)  # fmt: skip
def test_a_loss_is_never_written_as_nothing(value, words):
    assert measure(value) == words


def test_colours_and_markers_are_told_apart():
    assert len(set(COLOURS)) == len(COLOURS)
    pairs = [(COLOURS[k % len(COLOURS)], marker(k)) for k in range(40)]
    assert len(set(pairs)) == 40


@pytest.mark.parametrize(
    ("value", "words"),
    [(70e9, "70 B"), (1.25e6, "1.25 M"), (1500, "1.5 k"), (12.0, "12"), (1.4e12, "1.4 T"),
     (5e17, "5e17")],
)  # fmt: skip
def test_counts_in_words(value, words):
    assert count(value) == words


@pytest.mark.parametrize(("low", "high"), [(1e6, 3e6), (1e6, 5e7), (1e6, 1e11)])
def test_logarithmic_axes_have_a_handful_of_ticks(low, high):
    ticks = log_ticks([low, high])
    assert 3 <= np.count_nonzero((ticks >= low) & (ticks <= high)) <= 9


def test_a_single_value_has_room_for_the_labels_of_two_decades():
    ticks = log_ticks([1e3])
    assert np.count_nonzero((ticks >= 1e2) & (ticks <= 1e4)) == 7


def test_an_empty_axis_has_ticks_too():
    assert len(log_ticks([])) == 1
    assert len(log_ticks([np.nan])) == 1


def test_one_enormous_loss_does_not_flatten_the_others(runs):
    frame = runs.to_frame()
    frame.loc[3, "loss"] = 1e9
    drawing = plot_isoflop(snb.fit_isoflop(snb.RunTable.from_frame(frame)))
    low, high = drawing.layout.yaxis.range
    rest = frame["loss"].drop(3)
    assert low < rest.min() < rest.max() < high < 2 * rest.max()
    (said,) = (a.text for a in drawing.layout.annotations if a.name == "beyond")
    assert "1 run, loss 1e+09" in said


def test_an_axis_without_anything_far_out_is_left_to_itself(iso):
    drawing = plot_isoflop(iso)
    assert drawing.layout.yaxis.range is None
    assert not drawing.layout.annotations


def test_isoflop_curves_show_every_run_and_every_parabola(iso, runs):
    curves = isoflop_curves(iso)
    assert sorted(i for c in curves for i in c.run_ids) == sorted(runs.run_ids)
    assert [c.minimum.status for c in curves][-1] == "at_largest"
    assert curves[-1].label.endswith("no minimum")
    for curve in curves[:3]:
        lowest = curve.line_loss.min()
        assert lowest == pytest.approx(curve.minimum.loss, rel=1e-4)


def test_a_budget_without_minimum_has_no_star_and_open_markers(iso):
    drawing = plot_isoflop(iso)
    stars = [t for t in drawing.data if t.marker.symbol == "star"]
    assert [t.x[0] for t in stars] == [m.n_params for m in iso.optima]
    lonely = next(t for t in drawing.data if "no minimum" in (t.name or ""))
    assert lonely.marker.symbol.endswith("-open")
    assert drawing.layout.xaxis.type == "log"
    assert "parameters" in drawing.layout.xaxis.title.text
    assert drawing.layout.paper_bgcolor == PAPER


@pytest.mark.parametrize("quantity", ["n_params", "n_tokens", "loss", "tokens_per_param"])
def test_the_frontier_is_the_allocation_along_c(iso, law, quantity):
    for fit in (iso, law):
        line = frontier(fit, quantity=quantity, target=1e23, points=5)
        assert line.compute[-1] == pytest.approx(1e23)
        for c, value, low, high in zip(line.compute, line.value, line.low, line.high, strict=True):
            answer = fit.allocate(c)
            assert value == getattr(answer, quantity)
            assert (low, high) == answer.intervals[quantity]
    drawing = plot_frontier({"A2": iso, "A3": law}, quantity=quantity, target=1e23)
    assert {t.name for t in drawing.data if t.name} >= {"A2", "A3"}


def test_published_laws_have_a_frontier_without_band():
    line = frontier(snb.published["llama3_2024"], points=3)
    assert np.isnan(line.low).all()
    assert np.isfinite(line.value).all()
    assert isinstance(plot_frontier(snb.published["llama3_2024"]), go.Figure)


def test_the_surface_is_the_laws(law, runs):
    view = surface_view(law, points=10)
    assert view.loss[3, 7] == pytest.approx(law.predict(view.n_params[7], view.n_tokens[3]))
    assert view.n_params[0] < runs.N.min() < runs.N.max() < view.n_params[-1]
    n, d = view.best_n[5], view.best_d[5]
    assert law.allocate(6 * n * d).n_params == pytest.approx(n)
    assert [type(t).__name__ for t in plot_surface(law).data] == ["Contour", "Scatter", "Scatter"]


def test_a_law_of_compute_alone_has_no_surface(runs):
    with pytest.raises(FitError, match="no surface"):
        surface_view(snb.fit_law(runs, snb.PowerLaw("C"), bootstrap=0))


def test_a_diverged_run_is_marked_among_the_residuals(runs):
    columns = dict(runs.columns)
    columns["loss"] = columns["loss"].copy()
    columns["loss"][2] *= 1.3
    fit = snb.fit_law(snb.RunTable(columns=columns), bootstrap=0)
    view = residuals(fit)
    assert [i for i, far in zip(view.run_ids, view.far, strict=True) if far] == ["sim-0002"]
    drawing = plot_residuals(fit, "N")
    assert list(next(t for t in drawing.data if t.name == "far out").text) == ["sim-0002"]


def test_residuals_and_profiles_need_runs():
    with pytest.raises(FitError, match="no runs"):
        plot_residuals(LAW)
    with pytest.raises(FitError, match="no profile"):
        plot_profile(LAW)
    with pytest.raises(FitError, match="no bootstrap sample"):
        plot_bootstrap(LAW)


@pytest.mark.parametrize(("name", "value"), [("E", "E"), ("exponent_N", None)])
def test_the_profile_figure_is_lowest_at_the_fit_and_marks_the_interval(law, name, value):
    drawing = plot_profile(law, name)
    x, rise = (np.asarray(drawing.data[0][axis]) for axis in "xy")
    best = law.params[value] if value else law.exponent_N
    low, high = law.profile_intervals[name]
    assert x[rise.argmin()] == pytest.approx(best, rel=1e-9)
    assert x[0] <= low < best < high <= x[-1]
    assert np.all(rise[(x < low) | (x > high)] >= 2.70)
    band = next(shape for shape in drawing.layout.shapes if shape.type == "rect")
    assert (band.x0, band.x1) == (low, high)


def test_a_parameter_without_a_profile_is_an_error(law):
    with pytest.raises(FitError, match="no profile of 'alpha'; there is one of E, exponent_N"):
        plot_profile(law, "alpha")


def test_the_bootstrap_figure_has_one_point_a_resample(law):
    drawing = plot_bootstrap(law)
    assert len(drawing.data[0].x) == len(law.samples)
    assert drawing.data[1].x[0] == law.params["alpha"]


def test_a_comparison_draws_what_answered():
    runs = snb.simulate(LAW, RandomDesign(n_runs=60), 0.003, 0)
    comparison = snb.compare(runs, bootstrap=50, literature=["llama3_2024"])
    bars = comparison_bars(comparison)
    failed = {e.method for e in comparison.entries if e.answer is None}
    assert failed
    assert {b.label for b in bars}.isdisjoint(failed)
    assert len(comparison_bars(comparison, "loss")) == len(bars) - 1
    for quantity in ("n_params", "n_tokens", "loss", "exponent_N"):
        drawing = plot_comparison(comparison, quantity)
        assert sum(len(t.x) for t in drawing.data) == len(comparison_bars(comparison, quantity))


def test_long_curves_are_averaged_and_named_by_size():
    family = simulate_curves(LAW, [1e8, 1e9], 1e11, 0.2, points=5000)
    lines = curve_lines(family)
    assert [line.label for line in lines] == ["N 100 M", "N 1 B"]
    for line, curve in zip(lines, family, strict=True):
        assert 40 < len(line.x) <= 60
        assert curve.tokens[0] <= line.x[0] < line.x[-1] <= curve.tokens[-1]
        clean = LAW.predict(np.full(len(line.x), curve.N), line.x)
        assert np.std(np.log(line.loss / clean)) < 0.06
    assert curve_lines(family, x="flops")[1].x[-1] == pytest.approx(6e20, rel=0.1)


def test_short_curves_are_drawn_as_they_are():
    (curve,) = simulate_curves(LAW, [1e8], 1e11, points=50)
    (line,) = curve_lines([curve])
    np.testing.assert_array_equal(line.loss, curve.loss)


def test_the_envelope_lies_on_the_curves():
    family = simulate_curves(LAW, np.geomspace(3e7, 3e10, 12), 1e12)
    envelope = snb.fit_envelope(family, bootstrap=0)
    drawing = plot_curves(family, x="flops", envelope=envelope)
    assert drawing.data[-1].name == "lower envelope"
    assert len([t for t in drawing.data if t.showlegend]) == 12


def test_no_curves_make_an_empty_figure():
    assert len(plot_curves([]).data) == 0


def test_of_many_runs_a_sample_is_drawn_and_every_outlier():
    runs = snb.simulate(LAW, RandomDesign(n_runs=20_000), 0.003, 0)
    columns = dict(runs.columns)
    columns["loss"] = columns["loss"].copy()
    columns["loss"][[7, 11_113]] *= 1.5
    fit = snb.fit_law(snb.RunTable(columns=columns), bootstrap=0)
    view = residuals(fit)
    assert len(view.x) < 5100
    assert {"sim-0007", "sim-11113"} <= set(np.array(view.run_ids)[view.far])
    assert len(surface_view(fit).run_n) == 5000


def test_the_frontier_on_the_surface_follows_counted_flops(runs):
    columns = {**runs.columns, "C": runs.columns["C"] * (1 + 40 * runs.columns["N"] ** -0.3)}
    fit = snb.fit_law(snb.RunTable(columns=columns), bootstrap=0, flops="counted")
    view = surface_view(fit, points=5)
    for n, d in zip(view.best_n[::50], view.best_d[::50], strict=True):
        assert fit.allocate(float(fit.flops.compute(n, d))).n_params == pytest.approx(n, rel=1e-4)


def test_a_minimum_whose_interval_has_no_end_has_no_bar(iso):
    drawn = plot_frontier(iso)
    bars = [trace.error_y for trace in drawn.data if trace.error_y.array is not None]
    up, down = np.array(bars[-1].array, float), np.array(bars[-1].arrayminus, float)
    assert min(up.min(), down.min()) > 0
    whole = (0.0, np.inf)
    odd = [dataclasses.replace(m, intervals={**m.intervals, "n_params": whole}) for m in iso.minima]
    bar = plot_frontier(dataclasses.replace(iso, minima=tuple(odd))).data[-1].error_y
    assert not np.any(bar.array)
    assert not np.any(bar.arrayminus)


def test_a_target_below_the_runs_is_on_the_line(iso):
    target = float(iso.runs.C.min()) / 20
    line = frontier(iso, target=target)
    assert line.compute[0] == pytest.approx(target)
