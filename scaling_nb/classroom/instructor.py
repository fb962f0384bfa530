"""What the lecturer sees: the truth of a game, everybody's prediction on it, and the scores."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import PlanError, ScalingWarning
from ..fit import LawFit
from .collecting import Line, collect
from .standings import Standings, table
from .submission import Submission
from .verdict import Verdict, judge
from .worlds import World, world

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from .collecting import Source


@dataclass(frozen=True, slots=True)
class Instructor:
    """What the lecturer sees: the truth of a game, and everybody's score.

    Parameters
    ----------
    seed : int or str
    purse : float, FLOP, optional
    recorded : str
        All as the students' :class:`Classroom` has them.
    """

    seed: int | str
    purse: float | None = None
    recorded: str = ""

    @property
    def _world(self) -> World:
        return world(str(self.seed), purse=self.purse, noise=0.0, recorded=self.recorded)

    @property
    def truth(self) -> LawFit:
        """The hidden law."""
        return self._world.truth

    def read(self, submissions: Source) -> Standings:
        """Return the verdict on each student of this game, and what was left out; never raises.

        Parameters
        ----------
        submissions : path, sequence of paths, or DataFrame
            Files with the lines of :class:`Submission`, or folders of such ``.csv`` and ``.txt``
            files. A student's last line counts.
        """
        game = self._world
        found = collect(submissions, seed=str(self.seed), purse=game.purse, recorded=self.recorded)
        judged = [judge(self._submission(student, line)) for student, line in found.lines]
        ranked = sorted(judged, key=lambda verdict: -verdict.score)
        return Standings(verdicts=tuple(ranked), left_out=found.left_out)

    def _submission(self, student: str, line: Line) -> Submission:
        game, n_params, n_runs = self._world, line.number("n_params"), line.number("n_runs")
        return Submission(
            student=student,
            seed=str(self.seed),
            recorded=self.recorded,
            purse=game.purse,
            spent=line.number("spent"),
            n_runs=int(n_runs) if 0 <= n_runs < float("inf") else 0,
            target=game.target,
            n_params=n_params,
            n_tokens=float(game.truth.flops.tokens(game.target, n_params)),
            loss=line.number("loss"),
        )

    def verdicts(self, submissions: Source) -> tuple[Verdict, ...]:
        """Return the verdict on each student of this game, best first.

        Takes what :meth:`read` does.

        Raises
        ------
        PlanError
            If no line belongs to this game; says what was found instead.

        Warns
        -----
        ScalingWarning
            Of each file and line that is left out.
        """
        found = self.read(submissions)
        if not found.verdicts:
            raise PlanError(self.nothing(found))
        for sentence in found.left_out:
            warnings.warn(sentence, ScalingWarning, stacklevel=2)
        return found.verdicts

    def nothing(self, found: Standings) -> str:
        """Return the sentences for a class of which no line counts."""
        game = f"seed {str(self.seed)!r} and a purse of {self._world.purse:g} FLOP"
        return " ".join([f"no submission is for {game}.", *found.left_out])

    def standings(self, submissions: Source) -> pd.DataFrame:
        """Return all submissions of this game with loss, regret and score, best first.

        Takes and raises what :meth:`verdicts` does.
        """
        return table(self.verdicts(submissions))

    def plot(self, submissions: Source) -> go.Figure:
        """Draw the true surface with everybody's prediction and score."""
        from .pictures import draw_truth, truth_view

        return draw_truth(truth_view(self.verdicts(submissions)))

    def view(self, submissions: Source) -> Any:
        """Return ipywidgets: standings, all predictions on the surface, and a button to reread."""
        from .view import instructor_view

        return instructor_view(self, submissions)
