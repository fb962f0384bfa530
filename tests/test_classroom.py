import json

import numpy as np
import pandas as pd
import pytest

import scaling_nb as snb
from scaling_nb.classroom import Classroom, Instructor, hidden_law


def play(game):
    """Buy eight runs around a fifth of the purse in four budgets, as a good student would."""
    for share in (0.02, 0.05, 0.1, 0.16):
        center = np.sqrt(share * game.purse / 120)
        for factor in (0.25, 0.5, 1.0, 2.0, 4.0)[:: 1 if share < 0.1 else 2]:
            n = center * factor
            game.buy(n, share * game.purse / 5 / (6 * n))
    return game


def test_equal_games_have_equal_losses_and_other_seeds_other_laws():
    a, b = play(Classroom("monday")), play(Classroom("monday"))
    assert np.array_equal(a.runs.L, b.runs.L)
    assert not np.array_equal(a.runs.L, play(Classroom("tuesday")).runs.L)
    assert Classroom(7).buy(1e8, 1e9).loss == Classroom("7").buy(1e8, 1e9).loss


def test_the_purse_is_kept():
    game = Classroom(1, purse=1e18)
    game.buy(1e7, 5e9)
    assert game.left == pytest.approx(1e18 - 3e17)
    with pytest.raises(snb.PlanError, match=r"7e\+17 of 1e\+18 are left"):
        game.buy(1e8, 5e9)
    with pytest.raises(snb.PlanError, match="at least 1"):
        game.buy(0, 5e9)
    assert len(game.runs) == 1
    game.buy(1e7, game.left / 6e7)
    assert game.left == pytest.approx(0, abs=1e6)


def test_the_truth_comes_after_the_commitment_and_only_one_counts():
    game = Classroom(3)
    with pytest.raises(snb.PlanError, match="commit"):
        game.reveal()
    game.commit(1e9, loss=2.0)
    with pytest.raises(snb.PlanError, match="already"):
        game.commit(2e9)
    with pytest.raises(snb.PlanError, match="no more runs"):
        game.buy(1e7, 1e8)
    assert game.reveal().truth.params == hidden_law("3", 1e19).params


@pytest.mark.parametrize("seed", range(5))
def test_the_optimum_scores_full_and_regret_is_compute(seed):
    truth = hidden_law(str(seed), 1e19)
    best = truth.allocate(1e21)
    game = Classroom(seed)
    game.commit(best.n_params)
    verdict = game.reveal()
    assert verdict.score == pytest.approx(100, abs=1e-6)
    off = Classroom(seed)
    off.commit(best.n_params * 8)
    verdict = off.reveal()
    assert 0 < verdict.score < 97
    # With that much less compute, the optimum is as good as the choice.
    cheaper = truth.allocate(1e21 - verdict.regret)
    assert cheaper.loss == pytest.approx(verdict.loss, rel=1e-6)
    n = np.geomspace(best.n_params / 100, best.n_params * 100, 4001)
    loss = truth.predict(n, 1e21 / (6 * n))
    assert n[loss.argmin()] == pytest.approx(best.n_params, rel=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_is_within_reach_of_the_purse(seed):
    best = hidden_law(str(seed), 1e19).allocate(1e19)
    assert 5 <= best.tokens_per_param <= 80
    assert 1.9 < best.loss < 3.3


@pytest.mark.parametrize("seed", ["monday", "tuesday"])
def test_a_student_who_fits_the_law_wins(seed):
    game = play(Classroom(seed))
    fit = snb.fit_law(game.runs, bootstrap=0)
    game.commit(fit.allocate(game.target).n_params)
    assert game.reveal().score > 85


def test_standings_are_graded_from_the_choice_not_from_what_the_file_says(tmp_path):
    path = tmp_path / "submissions.csv"
    best = hidden_law("42", 1e19).allocate(1e21).n_params
    for name, factor in (("Ann", 1.0), ("Bo", 4.0), ("Cy", 30.0), ("Bo", 2.0)):
        game = Classroom(42, student=name)
        game.commit(best * factor)
        game.submission.to_csv(path)
    frame = pd.read_csv(path)
    assert len(frame) == 4
    table = Instructor(42).standings(path)
    assert table["student"].tolist() == ["Ann", "Bo", "Cy"]
    assert table["score"].iloc[0] == pytest.approx(100)
    assert table["n_params"].iloc[1] == pytest.approx(2 * best)
    assert table["score"].is_monotonic_decreasing
    assert len(Instructor(42).standings([path, path])) == 3
    with pytest.raises(snb.PlanError, match="seeds 42"):
        Instructor(43).standings(path)


def states(widget):
    yield {key: value for key, value in widget.get_state().items() if key != "layout"}
    for child in getattr(widget, "children", ()):
        yield from states(child)


def test_the_browser_gets_the_students_runs_and_not_the_truth():
    game = Classroom("secret")
    panel = game.view()
    for _ in range(3):
        panel.parts["buy"].click()
    assert len(game.runs) == 3
    text = json.dumps(list(states(panel)), default=str)
    assert f"{game.runs.L[0]:.4g}" in text
    truth = hidden_law("secret", game.purse)
    best = truth.allocate(game.target)
    for value in (*truth.params.values(), best.n_params, best.loss):
        assert f"{value:.3g}" not in text
        assert f"{value:.6g}" not in text
    panel.parts["choice"].value = 1e9
    panel.parts["commit"].click()
    assert game.submission.n_params == pytest.approx(1e9)
    assert "score" in panel.parts["message"].value
    assert panel.parts["buy"].disabled


def test_the_view_says_what_cannot_be_paid():
    game = Classroom(5, purse=1e15)
    panel = game.view()
    panel.parts["n"].value = 1e10
    panel.parts["d"].value = 10 ** panel.parts["d"].max
    assert panel.parts["buy"].disabled


def test_the_verdict_draws_the_truth_with_the_choice():
    game = Classroom(6)
    game.commit(1e9)
    verdict = game.reveal()
    line, optimum, mine = verdict.plot().data
    assert min(line.y) == pytest.approx(verdict.best_loss, rel=1e-3)
    assert (optimum.x[0], mine.x[0]) == (verdict.best_n_params, 1e9)
    assert "were wasted" in str(verdict)
