"""The classroom game: spend a purse of compute on runs, then say what a larger budget needs.

A hidden law decides every loss. Students see their own runs alone, commit to a model size for a
budget a hundred times their purse, and then see the truth and what their choice would have wasted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import PlanError
from .fit import LawFit
from .laws import ChinchillaLaw
from .records import Run, RunTable

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

TARGET = 100.0
"""The budget to predict for, in purses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a student committed to.

    Attributes
    ----------
    student : str
    seed : str
        Of the game.
    purse, spent : float, FLOP
    n_runs : int
    target : float, FLOP
        The budget predicted for.
    n_params, n_tokens : float
        The choice: N, and D = target / 6N.
    loss : float, nats per token
        Predicted; NaN where the student named none.
    """

    student: str
    seed: str
    purse: float
    spent: float
    n_runs: int
    target: float
    n_params: float
    n_tokens: float
    loss: float

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Append one line to a CSV of submissions; the header is written with the first."""
        import pandas as pd

        new = not Path(path).exists()
        pd.DataFrame([asdict(self)]).to_csv(path, mode="a", header=new, index=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A choice against the truth.

    Attributes
    ----------
    submission : Submission
    truth : LawFit
        The hidden law.
    best_n_params, best_loss : float
        The optimum at the target.
    loss : float, nats per token
        What the choice reaches.
    regret : float, FLOP
        target − C', where C' is the least compute that reaches that loss: what was wasted.
    """

    submission: Submission
    truth: LawFit
    best_n_params: float
    best_loss: float
    loss: float
    regret: float

    @property
    def score(self) -> float:
        """100 · C' / target: 100 for the optimum, 50 where half of the compute was wasted."""
        return 100.0 * (1.0 - self.regret / self.submission.target)

    def __str__(self) -> str:
        mine = self.submission
        return (
            f"score {self.score:.1f} of 100. You chose N = {mine.n_params:.3g}; the optimum is "
            f"{self.best_n_params:.3g}. Your model reaches {self.loss:.4f}, the best "
            f"{self.best_loss:.4f} nats per token: {self.regret:.2g} of {mine.target:.2g} FLOP "
            "were wasted."
        )

    def plot(self) -> go.Figure:
        """Draw the true loss at the target budget against N, the optimum, and the choice."""
        from .plots.style import axis, colour, figure

        mine = self.submission
        n = np.geomspace(self.best_n_params / 30, self.best_n_params * 30, 120)
        drawing = figure(
            f"The truth at {mine.target:.2g} FLOP",
            axis("model size N", "parameters", log=True, values=n),
            axis("loss", "nats per token"),
        )
        drawing.add_scatter(
            x=n,
            y=self.truth.predict(n, mine.target / (6 * n)),
            mode="lines",
            name="the hidden law",
            line={"color": colour(0)},
        )
        for name, x, y, symbol, k in (
            ("the optimum", self.best_n_params, self.best_loss, "star", 0),
            ("your choice", mine.n_params, self.loss, "diamond", 1),
        ):
            marker = {"symbol": symbol, "size": 14, "color": colour(k)}
            drawing.add_scatter(x=[x], y=[y], mode="markers", name=name, marker=marker)
        return drawing


class Classroom:
    """One student's game; deterministic: equal seed and equal purchases give equal losses.

    Parameters
    ----------
    seed : int or str
        Decides the hidden law and the noise. A class shares one; a word is as good as a number.
    purse : float, FLOP
        What may be spent on runs, at C = 6·N·D.
    noise : float
        Standard deviation of ln loss between runs.
    student : str
        Stands in the submission.

    Examples
    --------
    >>> game = Classroom("monday", purse=1e19)
    >>> game.buy(n_params=2e7, n_tokens=4e8).loss   # doctest: +SKIP
    >>> game.commit(n_params=3e9)                   # doctest: +SKIP
    >>> print(game.reveal())                        # doctest: +SKIP
    """

    def __init__(
        self, seed: int | str, *, purse: float = 1e19, noise: float = 0.003, student: str = ""
    ) -> None:
        if not (np.isfinite(purse) and purse > 0 and noise >= 0):
            raise PlanError("purse must be a positive number of FLOP, and noise at least 0.")
        self.seed, self.purse, self.noise, self.student = str(seed), float(purse), noise, student
        self.target = TARGET * self.purse
        self.submission: Submission | None = None
        self._bought: list[Run] = []

    @property
    def runs(self) -> RunTable:
        """The student's own runs, as what every fit takes."""
        return RunTable.from_runs(self._bought)

    @property
    def spent(self) -> float:
        """FLOP spent so far."""
        return float(sum(run.C for run in self._bought))

    @property
    def left(self) -> float:
        """FLOP left in the purse."""
        return self.purse - self.spent

    def buy(self, n_params: float, n_tokens: float) -> Run:
        """Train a model of N parameters on D tokens, for 6·N·D FLOP of the purse.

        Raises
        ------
        PlanError
            If the purse is too small, N or D is below 1, or a prediction was committed already.
        """
        if self.submission is not None:
            raise PlanError("you have committed: no more runs. Start a new Classroom to play on.")
        n, d = float(n_params), float(n_tokens)
        if not (n >= 1 and d >= 1 and np.isfinite(n * d)):
            raise PlanError(f"N = {n:g} and D = {d:g} must both be at least 1.")
        cost = 6.0 * n * d
        if cost > self.left * (1 + 1e-9):
            raise PlanError(
                f"this run costs {cost:.3g} FLOP, but {self.left:.3g} of {self.purse:.3g} are "
                "left. Choose fewer parameters or fewer tokens."
            )
        number = len(self._bought)
        luck = np.random.default_rng([_number(self.seed), number]).normal()
        run = Run(
            run_id=f"run-{number + 1}",
            N=n,
            D=d,
            C=cost,
            loss=float(hidden_law(self.seed, self.purse).predict(n, d) * np.exp(self.noise * luck)),
            seed=float(number),
            n_total=n,
        )
        self._bought.append(run)
        return run

    def commit(self, n_params: float, loss: float = float("nan")) -> Submission:
        """Commit to a model size for :attr:`target`, and perhaps to the loss it will reach.

        Raises
        ------
        PlanError
            If N is below 1, or something was committed before.
        """
        if self.submission is not None:
            raise PlanError("you have committed already. reveal() shows the truth.")
        if not (np.isfinite(n_params) and n_params >= 1):
            raise PlanError(f"n_params is {n_params}, but must be a number of at least 1.")
        self.submission = Submission(
            student=self.student,
            seed=self.seed,
            purse=self.purse,
            spent=self.spent,
            n_runs=len(self._bought),
            target=self.target,
            n_params=float(n_params),
            n_tokens=self.target / (6.0 * float(n_params)),
            loss=float(loss),
        )
        return self.submission

    def reveal(self) -> Verdict:
        """Show the truth, after the commitment.

        Raises
        ------
        PlanError
            If nothing was committed yet.
        """
        if self.submission is None:
            raise PlanError("commit(n_params) first; the truth is shown after that.")
        return judge(self.submission)

    def view(self) -> Any:
        """Return the game as ipywidgets: sliders, a buy button, the runs, commit and reveal."""
        from .classroom_view import game_view

        return game_view(self)

    def __repr__(self) -> str:
        return (
            f"<Classroom {self.seed}: {len(self._bought)} runs, {self.left:.3g} of "
            f"{self.purse:.3g} FLOP left; predict for {self.target:.3g} FLOP>"
        )


@dataclass(frozen=True, slots=True)
class Instructor:
    """What the lecturer sees: the truth of a game, and everybody's score.

    Parameters
    ----------
    seed : int or str
    purse : float, FLOP
        Both as the students' :class:`Classroom` has them.
    """

    seed: int | str
    purse: float = 1e19

    @property
    def truth(self) -> LawFit:
        """The hidden law."""
        return hidden_law(str(self.seed), self.purse)

    def standings(
        self, submissions: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | pd.DataFrame
    ) -> pd.DataFrame:
        """Return all submissions of this game with loss, regret and score, best first.

        Parameters
        ----------
        submissions : path, sequence of paths, or DataFrame
            CSV files as :meth:`Submission.to_csv` writes them. A student's last line counts.

        Raises
        ------
        PlanError
            If none belongs to this game: another seed or purse.
        """
        import pandas as pd

        if isinstance(submissions, str | os.PathLike):
            submissions = [submissions]
        text = {"student": str, "seed": str}
        frame = (
            submissions
            if isinstance(submissions, pd.DataFrame)
            else pd.concat([pd.read_csv(path, dtype=text) for path in submissions])
        )
        ours = frame[(frame["seed"].astype(str) == str(self.seed)) & (frame["purse"] == self.purse)]
        if not len(ours):
            raise PlanError(
                f"no submission is for seed {self.seed!r} and a purse of {self.purse:g} FLOP. "
                f"There are seeds {', '.join(sorted(set(frame['seed'].astype(str))))}."
            )
        ours = ours.fillna({"student": ""}).drop_duplicates("student", keep="last")
        rows = []
        names = [f.name for f in fields(Submission)]
        for values in ours[names].itertuples(index=False):
            row: dict[str, Any] = dict(zip(names, values, strict=True))
            verdict = judge(Submission(**row))
            measured = {"reached": verdict.loss, "regret": verdict.regret, "score": verdict.score}
            rows.append({**row, **measured})
        return pd.DataFrame(rows).sort_values("score", ascending=False, ignore_index=True)


def judge(submission: Submission) -> Verdict:
    """Compare a choice with the truth of its game."""
    truth = hidden_law(submission.seed, submission.purse)
    best = truth.allocate(submission.target)
    loss = float(truth.predict(submission.n_params, submission.target / (6 * submission.n_params)))
    enough = min(truth.flops_to_reach(loss), submission.target)
    return Verdict(
        submission=submission,
        truth=truth,
        best_n_params=best.n_params,
        best_loss=best.loss,
        loss=loss,
        regret=submission.target - enough,
    )


def hidden_law(seed: str, purse: float) -> LawFit:
    """Draw the law of a game: a Chinchilla law with its optimum within reach of the purse.

    E, α, β, the optimal tokens per parameter r and the reducible loss R at C = purse are drawn;
    A/N^α = Rβ/(α+β) and B/D^β = Rα/(α+β) at that optimum give A and B.
    """
    rng = np.random.default_rng(_number(seed))
    e, alpha, beta, reducible = rng.uniform([1.4, 0.28, 0.28, 0.6], [2.0, 0.42, 0.42, 1.2])
    ratio = float(np.exp(rng.uniform(np.log(5.0), np.log(80.0))))
    n = np.sqrt(purse / (6.0 * ratio))
    params: Mapping[str, float] = {
        "E": float(e),
        "A": float(reducible * beta / (alpha + beta) * n**alpha),
        "B": float(reducible * alpha / (alpha + beta) * (n * ratio) ** beta),
        "alpha": float(alpha),
        "beta": float(beta),
    }
    return LawFit(
        law=ChinchillaLaw(),
        params=MappingProxyType(params),
        status="published",
        source=f"the hidden law of game {seed}",
    )


def _number(seed: str) -> int:
    return int.from_bytes(hashlib.sha256(f"classroom {seed}".encode()).digest()[:8], "big")
