"""A choice against the truth of its game."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..fit import LawFit
from ..records import RunTable
from .submission import Submission
from .worlds import world

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """A choice against the truth.

    Attributes
    ----------
    submission : Submission
    truth : LawFit
        The hidden law, or the law through the runs that were recorded around the target.
    target : float, FLOP
        The game's own, whatever the submission says.
    best_n_params, best_n_tokens, best_loss : float
        The optimum at the target.
    loss : float, nats per token
        What the choice reaches.
    regret : float, FLOP
        target − C', where C' is the least compute that reaches that loss: what was wasted.
    runs : RunTable or None
        The student's own.
    measured : RunTable or None
        What was really trained at the target.
    """

    submission: Submission
    truth: LawFit
    target: float
    best_n_params: float
    best_n_tokens: float
    best_loss: float
    loss: float
    regret: float
    runs: RunTable | None = field(default=None, repr=False)
    measured: RunTable | None = field(default=None, repr=False)

    @property
    def score(self) -> float:
        """100 · C' / target: 100 for the optimum, 50 where half of the compute was wasted."""
        return 100.0 * (1.0 - self.regret / self.target)

    def __str__(self) -> str:
        return (
            f"score {self.score:.1f} of 100. You chose N = {self.submission.n_params:.3g}; the "
            f"optimum is {self.best_n_params:.3g}. Your model reaches {self.loss:.4f}, the best "
            f"{self.best_loss:.4f} nats per token: {self.regret:.2g} of {self.target:.2g} FLOP "
            "were wasted."
        )

    def plot(self) -> go.Figure:
        """Draw the true surface over N and D, with the runs, the optimum and the choice."""
        from .pictures import draw_truth, truth_view

        return draw_truth(truth_view([self]))

    def plot_valley(self) -> go.Figure:
        """Draw the true loss at the target budget against N, the optimum, and the choice."""
        from .pictures import draw_valley

        return draw_valley(self)


def judge(submission: Submission, runs: RunTable | None = None) -> Verdict:
    """Compare a choice with the truth of its game.

    The target is the game's, by its seed, purse and recording; D follows from it and from N. What
    the submission says of either is not trusted.
    """
    game = world(submission.seed, purse=submission.purse, noise=0.0, recorded=submission.recorded)
    truth, target = game.truth, game.target
    best = truth.allocate(target)
    tokens = tokens_at(truth, target, submission.n_params)
    loss = float(truth.predict(submission.n_params, tokens))
    enough = min(truth.flops_to_reach(loss), target)
    return Verdict(
        submission=submission,
        truth=truth,
        target=target,
        best_n_params=best.n_params,
        best_n_tokens=best.n_tokens,
        best_loss=best.loss,
        loss=loss,
        regret=target - enough,
        runs=runs,
        measured=game.measured,
    )


def tokens_at(truth: LawFit, compute: float, n_params: float) -> float:
    """Return the D that a budget pays for at N, as the game counts FLOP."""
    return float(truth.flops.tokens(compute, n_params))
