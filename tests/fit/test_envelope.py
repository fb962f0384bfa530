from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import scaling_nb as snb
from scaling_nb.errors import FitError, TooFewRunsError
from scaling_nb.simulation import GridDesign, simulate_curves

LAW = snb.published["besiroglu_2024"]


def curves(n=16, noise=0.003, seed=0):
    return simulate_curves(LAW, np.geomspace(3e7, 3e10, n), 1e12, noise, seed)


def test_the_envelope_gives_the_laws_exponent():
    fit = snb.fit_envelope(curves())
    assert fit.status == "converged"
    low, high = fit.intervals["exponent_N"]
    assert low < LAW.exponent_N < high
    assert fit.exponent_N == pytest.approx(LAW.exponent_N, abs=0.03)
    answer, true = fit.allocate(1e22), LAW.allocate(1e22)
    assert answer.n_params == pytest.approx(true.n_params, rel=0.15)
    assert answer.loss == pytest.approx(true.loss, rel=0.01)
    assert answer.n_params * answer.n_tokens * 6 == pytest.approx(1e22)


def test_the_envelope_lies_below_every_curve_and_falls():
    family = curves(noise=0.0)
    fit = snb.fit_envelope(family, bootstrap=0)
    assert (np.diff(fit.loss) <= 1e-12).all()
    for curve in family:
        inside = (fit.compute >= curve.flops[0]) & (fit.compute <= curve.flops[-1])
        at = np.interp(np.log(fit.compute[inside]), np.log(curve.flops), curve.loss)
        assert (fit.loss[inside] <= at * (1 + 1e-3)).all()


def test_the_ends_where_no_model_competes_are_left_out():
    fit = snb.fit_envelope(curves(noise=0.0), bootstrap=0)
    sizes = np.geomspace(3e7, 3e10, 16)
    assert fit.n_params.min() > sizes[0] * 1.01
    assert fit.n_params.max() < sizes[-1] * 0.99


def test_curves_in_mid_schedule_are_refused():
    raw = [dataclasses.replace(curve, decayed=False) for curve in curves()]
    with pytest.raises(FitError, match="16 of 16 curves are read off in the middle"):
        snb.fit_envelope(raw)
    fit = snb.fit_envelope(raw, accept_undecayed=True)
    assert fit.warnings[0].code == "undecayed_schedule"
    assert len(fit.warnings[0].run_ids) == 16


def test_a_table_of_trunks_is_a_family_of_decayed_curves():
    grid = GridDesign(n_params=np.geomspace(1e8, 1e10, 10), n_tokens=np.geomspace(1e9, 1e12, 8))
    fit = snb.fit_envelope(snb.simulate(LAW, grid, 0.001, 0, trunk_noise=0.001))
    assert fit.exponent_N == pytest.approx(LAW.exponent_N, abs=0.06)


def test_seeds_are_averaged_not_picked():
    two = [*curves(seed=1, noise=0.02), *curves(seed=2, noise=0.02)]
    one = snb.fit_envelope(curves(seed=1, noise=0.02), bootstrap=0)
    both = snb.fit_envelope(two, bootstrap=0)
    clean = LAW.predict(both.n_params, both.tokens)
    # The least of several noisy losses is too low; averaging first halves that.
    assert np.mean(both.loss / clean) > np.mean(one.loss / LAW.predict(one.n_params, one.tokens))


def test_one_point_a_trunk_and_few_sizes_are_refused():
    lonely = snb.simulate(LAW, GridDesign(n_params=[1e8, 1e9, 1e10], n_tokens=[1e10]))
    with pytest.raises(TooFewRunsError, match="trunks have runs at several D"):
        snb.fit_envelope(lonely)
    with pytest.raises(TooFewRunsError, match="3 sizes or more, and there are 2"):
        snb.fit_envelope(curves()[:2])
    apart = simulate_curves(LAW, [1e6, 1e9, 1e12], 1e10)
    with pytest.raises(TooFewRunsError, match="overlap in C"):
        snb.fit_envelope(apart)


def test_an_interval_that_says_nothing_is_not_converged():
    fit = snb.fit_envelope(curves(noise=0.1)[::2])
    low, high = fit.intervals["exponent_N"]
    assert high - low > 0.5
    assert fit.status == "ill_conditioned"
    assert "interval_says_nothing" in {note.code for note in fit.warnings}


def trunks(schedule=None):
    grid = GridDesign(n_params=np.geomspace(1e8, 1e10, 10), n_tokens=np.geomspace(1e9, 1e12, 8))
    frame = snb.simulate(LAW, grid, 0.001, 0, trunk_noise=0.001).to_frame()
    return snb.RunTable.from_frame(frame if schedule is None else frame.assign(schedule=schedule))


def test_a_table_of_constant_rates_is_refused_and_an_unknown_schedule_is_said():
    with pytest.raises(FitError, match="10 of 10 curves are read off in the middle"):
        snb.fit_envelope(trunks("constant"))
    accepted = snb.fit_envelope(trunks("constant"), accept_undecayed=True)
    assert accepted.warnings[0].code == "undecayed_schedule"
    assert "unknown_schedule" in {w.code for w in snb.fit_envelope(trunks()).warnings}
    assert "unknown_schedule" not in {w.code for w in snb.fit_envelope(trunks("wsd")).warnings}


def test_an_envelope_shows_itself():
    html = snb.fit_envelope(trunks(), bootstrap=50)._repr_html_()
    assert "Approach 1" in html
    assert "<li>" in html
    assert "column `schedule`" in html


def test_what_is_doubtful_goes_with_every_answer():
    raw = [dataclasses.replace(curve, decayed=False) for curve in curves()]
    fit = snb.fit_envelope(raw, accept_undecayed=True, bootstrap=50)
    assert fit.status == "ill_conditioned"
    assert fit.allocate(1e22).notes[0].code == "undecayed_schedule"


def test_a_frame_is_read_as_a_table():
    fit, same = snb.fit_envelope(trunks("wsd").to_frame()), snb.fit_envelope(trunks("wsd"))
    assert fit.exponent_N == same.exponent_N
