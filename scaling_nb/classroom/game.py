"""One student's game."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import PlanError
from ..events import Signal
from ..records import Run, RunTable
from .submission import Submission
from .verdict import Verdict, judge, tokens_at
from .worlds import world


class Classroom:
    """One student's game; deterministic: equal seed and equal purchases give equal losses.

    Parameters
    ----------
    seed : int or str
        Decides the hidden law and the noise. A class shares one; a word is as good as a number.
    purse : float, FLOP, optional
        What may be spent on runs. None: 1e19, or a quarter of the target of a recorded sweep.
        A run of the hidden law costs C = 6·N·D, at least a hundredth of the purse, and has 0.1 to
        10,000 tokens per parameter.
    noise : float
        Standard deviation of ln loss between runs of the hidden law.
    student : str
        Stands in the submission.
    recorded : str
        Name of a recorded sweep, ``"stdlib-gpt"``: then a purchase is the nearest run that was
        really trained and costs what that took, the target is the largest budget that was
        recorded, and the truth is what was measured there. Empty: a hidden law.

    Attributes
    ----------
    changed : Signal
        Sends the game after each purchase and after the commitment.

    Examples
    --------
    >>> game = Classroom("monday", purse=1e19)
    >>> game.buy(n_params=1e8, n_tokens=4e8).loss   # doctest: +SKIP
    >>> game.commit(n_params=3e9)                   # doctest: +SKIP
    >>> print(game.reveal())                        # doctest: +SKIP
    """

    def __init__(
        self,
        seed: int | str,
        *,
        purse: float | None = None,
        noise: float = 0.005,
        student: str = "",
        recorded: str = "",
    ) -> None:
        self._world = world(str(seed), purse=purse, noise=noise, recorded=recorded)
        self.seed, self.student, self.recorded = str(seed), student, recorded
        self.purse, self.target = self._world.purse, self._world.target
        self.submission: Submission | None = None
        self.changed: Signal[Classroom] = Signal()
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
        """Train a model of N parameters on D tokens; its C is taken from the purse.

        Raises
        ------
        PlanError
            If the purse is too small, N or D is out of bounds, or a prediction was committed
            already.
        """
        if self.submission is not None:
            raise PlanError("you have committed: no more runs. Start a new Classroom to play on.")
        n, d = _number("n_params", n_params), _number("n_tokens", n_tokens)
        if not (n >= 1 and d >= 1 and np.isfinite(n * d)):
            raise PlanError(f"N = {n:g} and D = {d:g} must both be at least 1.")
        run = self._world.draw(n, d, len(self._bought), {run.run_id for run in self._bought})
        if self.left * (1 + 1e-9) < run.C:
            raise PlanError(
                f"this run costs {run.C:.3g} FLOP, but {self.left:.3g} of {self.purse:.3g} are "
                "left. Choose fewer parameters or fewer tokens."
            )
        self._bought.append(run)
        self.changed.send(self)
        return run

    def sizes(self, cost: float) -> tuple[float, float]:
        """Return the smallest and the largest N that a run of `cost` FLOP can have."""
        return self._world.sizes(cost)

    def commit(self, n_params: float, loss: float = float("nan")) -> Submission:
        """Commit to a model size for :attr:`target`, and perhaps to the loss it will reach.

        Raises
        ------
        PlanError
            If N or the loss is no number, N is below 1, or something was committed before.
        """
        if self.submission is not None:
            raise PlanError("you have committed already. reveal() shows the truth.")
        n, predicted = _number("n_params", n_params), _number("loss", loss)
        if not (np.isfinite(n) and n >= 1):
            raise PlanError(f"n_params is {n:g}, but must be a number of at least 1.")
        self.submission = Submission(
            student=self.student,
            seed=self.seed,
            recorded=self.recorded,
            purse=self.purse,
            spent=self.spent,
            n_runs=len(self._bought),
            target=self.target,
            n_params=n,
            n_tokens=tokens_at(self._world.truth, self.target, n),
            loss=predicted,
        )
        self.changed.send(self)
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
        return judge(self.submission, self.runs)

    def view(self) -> Any:
        """Return the game as ipywidgets: sliders, a buy button, the runs, commit and reveal."""
        from .view import game_view

        return game_view(self)

    def __repr__(self) -> str:
        return (
            f"<Classroom {self.seed}: {len(self._bought)} runs, {self.left:.3g} of "
            f"{self.purse:.3g} FLOP left; predict for {self.target:.3g} FLOP>"
        )


def _number(name: str, value: object) -> float:
    """Return a number; text that looks like one is refused, as NumPy would refuse it later."""
    if isinstance(value, str | bytes):
        raise PlanError(
            f"{name} is {value!r}, which is text, but must be a number. Leave the quotes out."
        )
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise PlanError(f"{name} is {value!r}, but must be a number, such as 1e9.") from None
