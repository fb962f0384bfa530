"""What the lecturer sees: the truth of a game, everybody's prediction on it, and the scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..errors import PlanError
from ..fit import LawFit
from .submission import Submission, read_submissions
from .verdict import Verdict, judge
from .worlds import World, world

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | pd.DataFrame


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

    def verdicts(self, submissions: Source) -> tuple[Verdict, ...]:
        """Return the verdict on each student of this game, best first.

        Parameters
        ----------
        submissions : path, sequence of paths, or DataFrame
            CSV files as :meth:`Submission.to_csv` writes them. A student's last line counts.

        Raises
        ------
        PlanError
            If none belongs to this game: another seed, purse or recording.

        Warns
        -----
        ScalingWarning
            Of lines that hold no choice, which are left out.
        """
        frame = read_submissions(submissions)
        game = self._world
        ours = frame[
            (frame["seed"] == str(self.seed))
            & (frame["purse"] == game.purse)
            & (frame["recorded"] == self.recorded)
        ]
        if not len(ours):
            raise PlanError(
                f"no submission is for seed {str(self.seed)!r} and a purse of {game.purse:g} "
                f"FLOP. There are seeds {', '.join(sorted(set(frame['seed'])))}."
            )
        ours = ours.drop_duplicates("student", keep="last")
        found = [
            judge(
                Submission(
                    student=row["student"],
                    seed=str(self.seed),
                    recorded=self.recorded,
                    purse=game.purse,
                    spent=float(row["spent"]),
                    n_runs=int(row["n_runs"]) if row["n_runs"] >= 0 else 0,
                    target=game.target,
                    n_params=float(row["n_params"]),
                    n_tokens=float(game.truth.flops.tokens(game.target, float(row["n_params"]))),
                    loss=float(row["loss"]),
                )
            )
            for row in ours.to_dict("records")
        ]
        return tuple(sorted(found, key=lambda verdict: -verdict.score))

    def standings(self, submissions: Source) -> pd.DataFrame:
        """Return all submissions of this game with loss, regret and score, best first.

        Takes and raises what :meth:`verdicts` does.
        """
        import pandas as pd

        rows: list[dict[str, Any]] = [
            {
                **asdict(verdict.submission),
                "reached": verdict.loss,
                "regret": verdict.regret,
                "score": verdict.score,
            }
            for verdict in self.verdicts(submissions)
        ]
        return pd.DataFrame(rows)

    def plot(self, submissions: Source) -> go.Figure:
        """Draw the true surface with everybody's prediction and score."""
        from .pictures import draw_truth, truth_view

        return draw_truth(truth_view(self.verdicts(submissions)))

    def view(self, submissions: Source) -> Any:
        """Return ipywidgets: standings, all predictions on the surface, and a button to reread."""
        from .view import instructor_view

        return instructor_view(self, submissions)
