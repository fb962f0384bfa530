from __future__ import annotations

import json
import re

import pandas as pd
import pytest

import scaling_nb as snb
from scaling_nb.__main__ import main
from scaling_nb.fit_command import in_options
from scaling_nb.simulation import IsoFlopDesign, RandomDesign

LAW = snb.published["besiroglu_2024"]


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    runs = snb.simulate(LAW, IsoFlopDesign(budgets=(1e18, 1e19, 1e20), n_sizes=7), 0.003, 0)
    runs.to_csv(path)
    return path


def test_it_prints_the_fit_the_table_and_the_answer(csv, capsys):
    assert main(["fit", str(csv), "--target", "1e22", "--bootstrap", "100"]) == 0
    out = capsys.readouterr().out
    for text in ("21 runs at 3 compute budgets", "alpha", "Approach 2", "Back-test",
                 "training FLOP C     1e+22", "90 %", "times the compute of the largest run",
                 "| C (FLOP) |", "Approach 2 says"):  # fmt: skip
        assert text in out


def test_it_writes_report_allocation_and_fit(csv, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    main(["fit", str(csv), "--target", "1e21", "1e22", "--out", str(out), "--bootstrap", "100"])
    assert sorted(p.name for p in out.iterdir()) == ["allocation.csv", "fit.json", "report.html"]
    table = pd.read_csv(out / "allocation.csv")
    fit = snb.LawFit.from_json(out / "fit.json")
    assert list(table["n_params"]) == pytest.approx(
        [fit.allocate(c).n_params for c in (1e21, 1e22)], rel=1e-9
    )
    assert json.loads((out / "fit.json").read_text())["data_hash"] == (
        snb.RunTable.from_csv(csv).data_hash
    )
    assert "For C = 1e21 FLOP" in (out / "report.html").read_text()


def test_parameters_are_held_and_runs_excluded(csv, capsys):
    assert main(["fit", str(csv), "--fix", "E=1.8", "--exclude", "sim-0003", "--bootstrap", "0",
                 "--objective", "mse"]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "1.8" in out
    assert "20 runs" in out
    assert "excluded on the command line" in out


def test_runs_without_slices_are_fitted_by_the_law_alone(tmp_path, capsys):
    path = tmp_path / "random.csv"
    runs = snb.simulate(LAW, RandomDesign(n_runs=60), 0.003, 0)
    runs.to_frame()[["N", "D", "loss"]].rename(columns={"N": "size_of_model"}).to_csv(path)
    assert main(["fit", str(path), "--columns", "N=size_of_model", "--bootstrap", "0"]) == 0
    assert "Approach 2" not in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--max-tokens", "1e11"], ["--inference-tokens", "1e13"]])
def test_limits_change_the_answer_and_leave_approach_2_out(csv, capsys, options):
    assert main(["fit", str(csv), "--target", "1e22", *options, "--bootstrap", "0"]) == 0
    out = capsys.readouterr().out
    assert "Approach 2 says" not in out
    assert ("epochs over 1e+11 unique tokens" in out) == (options[0] == "--max-tokens")
    assert ("lifetime FLOP" in out) == (options[0] == "--inference-tokens")


def test_a_law_of_compute_alone_predicts_losses(csv, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["fit", str(csv), "--law", "power-law", "--target", "1e22", "--out", str(out),
                 "--bootstrap", "50"]) == 0  # fmt: skip
    table = pd.read_csv(out / "allocation.csv")
    fit = snb.LawFit.from_json(out / "fit.json")
    assert list(table.columns) == ["C", "loss", "loss_low", "loss_high", "extrapolation"]
    assert table["loss_low"][0] < table["loss"][0] < table["loss_high"][0]
    assert table["extrapolation"][0] == pytest.approx(100, rel=0.01)
    assert table["loss"][0] == pytest.approx(fit.predict(C=1e22))
    told = capsys.readouterr().out
    assert "power law" in told
    assert "This is 100 times the compute of the largest run." in told
    assert "what Approach 2 says with --law chinchilla" in told


@pytest.mark.parametrize("law", ["kaplan", "data-constrained"])
def test_other_laws_answer(law, tmp_path, capsys):
    path = tmp_path / "runs.csv"
    frame = snb.simulate(LAW, RandomDesign(n_runs=60), 0.003, 0).to_frame()
    frame["unique_tokens"] = frame["D"] / ([1, 4] * 30)
    frame.to_csv(path, index=False)
    assert main(["fit", str(path), "--law", law, "--target", "1e22", "--bootstrap", "0"]) == 0
    assert "tokens/parameter" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "there is no file nowhere.csv"),
        (["{csv}", "--fix", "E=much"], "must be a number"),
        (["{csv}", "--exclude", "zzz"], "no run is called 'zzz'"),
        (["{csv}", "--convention", "matmul"], "n_matmul"),
        (["{csv}", "--law", "data-constrained"], "no run repeats its data"),
        (["{csv}", "--law", "power-law", "--max-tokens", "1e9"], "divides no budget"),
        (["{csv}", "--target", "-1"], "--target is -1, but must be a positive"),
        (["{csv}", "--out", "{csv}/x"], "nothing can be written to --out"),
    ],
)
def test_mistakes_are_sentences(csv, capsys, arguments, message):
    assert main(["fit", *(a.format(csv=csv) for a in arguments)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--target", "1e21", "-1"], ["--out", "{csv}/x"]])
def test_what_can_only_fail_later_is_refused_before_the_fit(csv, capsys, wrong):
    assert main(["fit", str(csv), *(a.format(csv=csv) for a in wrong)]) == 1
    assert "alpha" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "here"),
    [
        ("or pass columns={'loss': 'your column'}.", "or pass --columns loss=YOUR_HEADER."),
        ("with columns={'N': 'params'}, or", "with --columns N=params, or"),
        ("or hold E with fixed={'E': ...}.", "or hold E with --fix E=VALUE."),
        ("or hold a parameter with fixed=.", "or hold a parameter with --fix NAME=VALUE."),
        ("If a run diverged, runs.exclude(ids, reason='diverged').",
         "If a run diverged, --exclude RUN_ID."),
        ("See fit.warnings before", "See the fit's notes above before"),
        ("pass flops='counted' to use", "pass --flops counted to use"),
        ("Bring them to one: runs.with_convention('total'), or",
         "Bring them to one: --convention total, or"),
        ("`budget`, or use fit_law, which needs none.", "`budget`, or use Approach 3."),
    ],
)  # fmt: skip
def test_remedies_are_options(said, here):
    assert in_options(said) == here


def test_an_unknown_header_is_remedied_by_the_option(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    path.write_text("N,D,perplex\n1e6,1e8,3.1\n")
    assert main(["fit", str(path)]) == 1
    assert "--columns loss=YOUR_HEADER" in capsys.readouterr().err


def test_an_excluded_row_is_no_seed(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    frame = snb.simulate(LAW, RandomDesign(n_runs=30), 0.003, 0).to_frame()[["N", "D", "loss"]]
    twice = pd.concat([frame, frame.iloc[:3]])
    twice["status"] = ["finished"] * 32 + ["failed"]
    twice.to_csv(path, index=False)
    with pytest.warns(snb.ScalingWarning, match="left out of every fit"):
        runs = snb.RunTable.from_csv(path)
    assert "2 row(s) repeat" in repr(runs)
    assert sorted(set(runs.column("seed"))) == [0.0, 1.0]


def test_approach_2_says_its_interval_and_its_doubt(csv, tmp_path, capsys):
    main(["fit", str(csv), "--target", "1e21", "--bootstrap", "200"])
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "Approach 2 says" in x]
    assert re.search(r"N \S+ \(90 %: \S+ to \S+\), D \S+ \(90 %: ", line)
    assert "Doubt" not in line
    noisy = tmp_path / "noisy.csv"
    snb.simulate(LAW, IsoFlopDesign(budgets=(1e18, 3e18), n_sizes=5), 0.03, 1).to_csv(noisy)
    main(["fit", str(noisy), "--target", "1e21", "--bootstrap", "200"])
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "Approach 2 says" in x]
    assert "Doubt it: it is ill-conditioned" in line


def test_a_malformed_option_is_explained(csv, capsys):
    with pytest.raises(SystemExit):
        main(["fit", str(csv), "--fix", "E"])
    assert "NAME=VALUE" in capsys.readouterr().err
