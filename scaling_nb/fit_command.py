"""``python -m scaling_nb fit runs.csv --target 1e21``: the answer without a notebook."""

from __future__ import annotations

import argparse
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import FitError, RunsError
from .fit import Allocation, Backtest, IsoFlopFit, LawFit, backtest, fit_isoflop, fit_law
from .fit.allocate import beyond
from .flops import CONVENTIONS
from .laws import ChinchillaLaw, DataConstrainedLaw, KaplanLaw, Law, PowerLaw
from .records import RunTable

if TYPE_CHECKING:
    import pandas as pd

_LAWS: Mapping[str, Callable[[], Law]] = {
    "chinchilla": ChinchillaLaw,
    "data-constrained": DataConstrainedLaw,
    "kaplan": KaplanLaw,
    "power-law": PowerLaw,
}

# What a sentence tells a Python user to call, and the option that does it here.
_OPTIONS = (
    (r"columns=\{'(\w+)': 'your column'\}", r"--columns \1=YOUR_HEADER"),
    (r"columns=\{'(\w+)': '([^']*)'\}", r"--columns \1=\2"),
    (r"fixed=\{'(\w+)': \.\.\.\}", r"--fix \1=VALUE"),
    (r"\bfixed=", "--fix NAME=VALUE"),
    (r"\bunit='(\w+)'", r"--unit \1"),
    (r"runs\.exclude\(ids, reason=[^)]*\)", "--exclude RUN_ID"),
    (r"runs\.with_convention\(['\"](\w+)['\"]\)", r"--convention \1"),
    (r"runs\.where\((\w+)=\[[^\]]*\]\)", r"keep the rows of one \1 in the CSV"),
    (r"\bobjective='([\w-]+)'", r"--objective \1"),
    (r"\bflops='(\w+)'", r"--flops \1"),
    (r"\bmax_tokens\b", "--max-tokens"),
    (r"\b(use|Use|prefer) fit_law(, which needs none)?", r"\1 Approach 3"),
    (r"\bfit_law\b", "Approach 3"),
    (r"fit_isoflop\(runs\)\.predict\(C\)", "what Approach 2 says with --law chinchilla"),
    (r"\b(Fit|fit|use|Use) DataConstrainedLaw", r"\1 --law data-constrained"),
    (r"\b(Fit|fit|use|Use) ChinchillaLaw", r"\1 --law chinchilla"),
    (r"\b(Fit|fit|use|Use) PowerLaw", r"\1 --law power-law"),
    (r"See fit\.warnings", "See the fit's notes above"),
    (r" ?`runs\.exclusions` lists them all\.", " --out DIR writes a report that lists them all."),
)


def in_options(text: str) -> str:
    """Return a sentence of the fits with the option in place of what to call in Python."""
    for pattern, words in _OPTIONS:
        text = re.sub(pattern, words, text)
    return text


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand ``fit``; its ``run`` is :func:`run`."""
    parser = commands.add_parser(
        "fit",
        help="fit a law to your own runs, and answer how big and how much data",
        description="Fit a scaling law to a CSV of runs with columns N, D and loss (or params, "
        "tokens, final_loss, ...; C, budget, seed, status and more are read where they are) and "
        "print the compute-optimal model size and tokens with their intervals.",
    )
    parser.add_argument("runs", type=Path, metavar="RUNS.csv")
    parser.add_argument(
        "--target", type=float, nargs="+", metavar="FLOP", help="training compute to divide"
    )
    parser.add_argument(
        "--law", choices=sorted(_LAWS), default="chinchilla",
        help="chinchilla (default); data-constrained: runs that repeat data (a column "
        "unique_tokens); kaplan; power-law: loss against C alone, which divides no budget",
    )  # fmt: skip
    parser.add_argument("--objective", choices=("log-huber", "mse"), default="log-huber")
    parser.add_argument(
        "--fix", type=_assignment, nargs="+", default=[], metavar="E=1.6", help="hold parameters"
    )
    parser.add_argument(
        "--columns", type=_assignment, nargs="+", default=[], metavar="N=HEADER",
        help="headers that are not understood by themselves",
    )  # fmt: skip
    parser.add_argument("--unit", metavar="WORD", help="what D counts, where it is no tokens")
    parser.add_argument("--exclude", nargs="+", default=[], metavar="RUN_ID")
    parser.add_argument("--convention", choices=CONVENTIONS, help="which count of N to use")
    parser.add_argument(
        "--flops", choices=("6ND", "counted"), default="6ND",
        help="how answers turn N and D into C: 6·N·D, or as the runs' own C",
    )  # fmt: skip
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument("--max-tokens", type=float, metavar="D", help="unique tokens there are")
    limits.add_argument(
        "--inference-tokens", type=float, metavar="D", help="tokens the model will serve"
    )
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="K")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write report.html, allocation.csv and fit.json"
    )
    parser.set_defaults(run=run, words=in_options)


def run(options: argparse.Namespace) -> int:
    """Fit, print and write what the options ask for; return the exit status."""
    if not options.runs.is_file():
        raise RunsError(f"there is no file {options.runs}. Give the path of a CSV of runs.")
    _check(options)
    runs = RunTable.from_csv(options.runs, columns=dict(options.columns) or None, unit=options.unit)
    if options.convention:
        runs = runs.with_convention(options.convention)
    if options.exclude:
        runs = runs.exclude(options.exclude, reason="excluded on the command line")
    print(f"{in_options(repr(runs))}\n")
    law = _LAWS[options.law]()
    if not law.answers_allocation and (options.max_tokens or options.inference_tokens):
        raise FitError(
            f"--law {options.law} predicts a loss from C and divides no budget, so --max-tokens "
            "and --inference-tokens have no meaning. Use --law chinchilla."
        )
    fixed = {name: _number(name, value) for name, value in options.fix}
    fit = fit_law(
        runs,
        law,
        options.objective,
        fixed=fixed or None,
        flops=options.flops,
        bootstrap=options.bootstrap,
        seed=options.seed,
    )
    print(f"{in_options(str(fit))}\n")
    isoflop = _isoflop(runs, options)
    if isoflop is not None:
        print(f"{in_options(str(isoflop))}\n")
    tested = _backtest(runs, law, options.objective, fixed)
    if tested is not None:
        print(f"{in_options(str(tested))}\n")
    answers: list[Allocation] = []
    if law.answers_allocation:
        answers = _answers(fit, isoflop, options)
        table = _table(fit, answers)
        if options.max_tokens or options.inference_tokens:
            print("Compute-optimal, with as many tokens as it takes and none to serve:\n")
        print(fit.chinchilla_table(format="markdown"))
    else:
        table = _losses(fit, options.target)
        print(table.to_string(index=False))
        far = {str(note) for c in table["C"] for note in beyond(float(c), fit.scope)}
        for text in sorted(far):
            print(f"! {in_options(text)}")
    if options.out:
        _write(options, runs, fit, isoflop, table, tested)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse, before the fit takes its time, what could only fail after it."""
    asked = {
        "--target": options.target or [],
        "--max-tokens": [] if options.max_tokens is None else [options.max_tokens],
        "--inference-tokens": [options.inference_tokens] if options.inference_tokens else [],
    }
    for name, values in asked.items():
        for value in values:
            if not (math.isfinite(value) and value > 0):
                raise FitError(f"{name} is {value:g}, but must be a positive number, such as 1e21.")
    if options.out:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=options.out):
                pass
        except OSError as error:
            raise FitError(
                f"nothing can be written to --out {options.out}: {error.strerror}. Name a folder "
                "of your own."
            ) from None


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=VALUE")
    return name, value


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise FitError(f"--fix {name}={text}: the value must be a number.") from None


def _isoflop(runs: RunTable, options: argparse.Namespace) -> IsoFlopFit | None:
    """Return Approach 2 beside the law, where the runs fall into IsoFLOP slices."""
    try:
        return fit_isoflop(runs, bootstrap=options.bootstrap, seed=options.seed)
    except FitError:
        return None


def _backtest(
    runs: RunTable, law: Law, objective: str, fixed: Mapping[str, float]
) -> Backtest | None:
    try:
        return backtest(runs, law, objective=objective, fixed=fixed)
    except FitError:
        return None


def _answers(
    fit: LawFit, isoflop: IsoFlopFit | None, options: argparse.Namespace
) -> list[Allocation]:
    """Print and return the answer at each target, Approach 2's for comparison."""
    answers = []
    for target in options.target or []:
        answer = fit.allocate(
            target,
            max_tokens=options.max_tokens,
            inference_tokens=options.inference_tokens or 0.0,
        )
        print(f"{in_options(str(answer))}\n")
        answers.append(answer)
        limited = options.max_tokens or options.inference_tokens
        if isoflop is not None and isoflop.trends is not None and not limited:
            other = isoflop.allocate(target)
            print(f"{_second_opinion(other, isoflop.status)}\n")
    return answers


def _second_opinion(other: Allocation, status: str) -> str:
    """Return Approach 2's answer in a sentence, with its intervals and its doubt."""

    def said(name: str, value: str) -> str:
        low, high = other.intervals.get(name, (math.nan, math.nan))
        if not math.isfinite(low + high):
            return f"{value} (no interval)"
        return f"{value} ({100 * other.level:.0f} %: {low:.3g} to {high:.3g})"

    text = (
        f"Approach 2 says N {said('n_params', f'{other.n_params:.3g}')}, "
        f"D {said('n_tokens', f'{other.n_tokens:.3g}')}, "
        f"loss {said('loss', f'{other.loss:.4g}')} at the same C."
    )
    if status == "converged":
        return text
    return f"{text} Doubt it: it is {status.replace('_', '-')}, for the reasons given above."


def _table(fit: LawFit, answers: Sequence[Allocation]) -> pd.DataFrame:
    from .fit.table import allocation_frame

    table: pd.DataFrame = allocation_frame(answers) if answers else fit.chinchilla_table()
    return table


def _losses(fit: LawFit, targets: Sequence[float] | None) -> pd.DataFrame:
    """Return the loss that a law of C alone predicts, at the targets or by decades."""
    import pandas as pd

    from .fit.table import decades

    compute = np.asarray(targets or decades(fit.scope), float)
    low, high = fit.predict_interval(C=compute)
    columns = {"C": compute, "loss": fit.predict(C=compute), "loss_low": low, "loss_high": high}
    if fit.scope is not None:
        columns["extrapolation"] = compute / fit.scope.C[1]
    return pd.DataFrame(columns)


def _write(
    options: argparse.Namespace,
    runs: RunTable,
    fit: LawFit,
    isoflop: IsoFlopFit | None,
    table: pd.DataFrame,
    tested: Backtest | None,
) -> None:
    from .plots import fit_report

    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "allocation.csv", index=False)
    fit.to_json(options.out / "fit.json")
    fit_report(
        runs,
        [fit] if isoflop is None else [fit, isoflop],
        target=options.target[0] if options.target else None,
        notes=[str(tested)] if tested is not None else [],
        title=f"Scaling law of {options.runs.name}",
        path=options.out / "report.html",
    )
    for name in ("report.html", "allocation.csv", "fit.json"):
        print(f"wrote {options.out / name}")
