"""From runs and a question to an analysis: a quick one at once, the whole one when it is still."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ScalingError
from ..fit import fit_law
from ..records import RunTable
from .analysis import Analysis, Question, analyse
from .desk import Desk
from .exclusions import Exclusions
from .ticker import Latest

_log = logging.getLogger(__name__)
_PAUSE = 0.4
_DIGITS = 3


class Fitting:
    """Keeps the analysis in step with the runs that count and with what is asked.

    Parameters
    ----------
    desk : Desk
    table : RunTable or None
        Runs without a sweep.
    """

    def __init__(self, desk: Desk, table: RunTable | None) -> None:
        self._desk, self._table = desk, table
        self.out = Exclusions({} if table is None else table.exclusions)
        self._quick, self._thorough = Latest("quick fit"), Latest("fit")

    def close(self) -> None:
        """Forget what has not begun."""
        self._quick.close()
        self._thorough.close()

    def runs_changed(self) -> None:
        """Take the runs anew, without those that are excluded, and fit them."""
        sweep = self._desk.state.sweep
        table = self._table if sweep is None else sweep.runs
        if table is not None:
            self._desk.put(runs=self.out.applied(table), undo=self.out.depth)
            self._refit()

    def ask(self, changes: Mapping[str, Any]) -> None:
        """Change the question and answer it."""
        desk = self._desk
        question = dataclasses.replace(desk.state.question, **changes)
        if question == desk.state.question:
            return
        desk.put(question=question)
        self.keep_question()
        self._refit()

    def hold(self, names: Sequence[str]) -> None:
        """Hold these parameters of the law where the data want them; Approach 3 has them."""
        question = self._desk.state.question
        method = "log-huber" if question.method == "isoflop" else question.method
        at = self._optimum(dataclasses.replace(question, method=method)) if names else {}
        self.ask({"method": method, "fixed": {k: round(at[k], _DIGITS) for k in names}})

    def _optimum(self, question: Question) -> dict[str, float]:
        runs, known = self._desk.state.runs, self._desk.state.analysis
        same = known is not None and known.runs is runs and known.question.method == question.method
        if same and known is not None and known.optimum is not None:
            return dict(known.optimum.params)
        try:
            if runs is None:
                raise ScalingError("no run has finished.")
            objective: Any = question.method
            return dict(fit_law(runs, objective=objective, bootstrap=0, flops="counted").params)
        except (ScalingError, ValueError) as error:
            raise ScalingError(f"nothing can be held yet: {error}") from error

    def mark(self, reasons: Mapping[str, str]) -> None:
        """Exclude exactly the runs of `reasons`."""
        said = self.out.change(reasons)
        if said:
            self._desk.note(said)
            self._marked()

    def undo(self) -> None:
        """Take the last mark back."""
        if self.out.undo():
            self._desk.note("undone")
            self._marked()

    def keep_question(self) -> None:
        """Store the question with the sweep, to find it after a restart."""
        sweep, question = self._desk.state.sweep, self._desk.state.question
        if sweep is not None:
            sweep.store.put_note(f"question {sweep.sweep_id}", dataclasses.asdict(question))

    def recall_question(self) -> None:
        """Ask what was asked last of a stored sweep; what was asked in Python now stands."""
        sweep, given = self._desk.state.sweep, self._desk.state.question
        stored = None if sweep is None else sweep.store.note(f"question {sweep.sweep_id}")
        if stored is None:
            return
        known = {f.name for f in dataclasses.fields(Question)}
        stored = {name: value for name, value in stored.items() if name in known}
        if given.target is not None:
            stored["target"] = given.target
        self._desk.put(question=Question(**stored))

    def at_once(self) -> None:
        """Make the analysis final here and now."""
        state = self._desk.state
        if state.runs is not None and state.fittable and not state.fitted:
            self._desk.put(analysis=analyse(state.runs, state.question, quick=False))

    def _marked(self) -> None:
        sweep = self._desk.state.sweep
        if sweep is not None:
            self.out.keep(sweep.store)
        self.runs_changed()

    def _refit(self) -> None:
        state = self._desk.state
        runs, question = state.runs, state.question
        if runs is None or not state.fittable:
            self._desk.put(analysis=None)
            return
        earlier = state.analysis

        def fit(quick: bool) -> None:
            try:
                done = analyse(runs, question, quick=quick, earlier=earlier)
            except Exception as error:
                _log.exception("the runs could not be analysed")
                done = Analysis(question=question, runs=runs, final=True, problem=str(error))
            self._desk.ticker.call(lambda: self._analysed(done))

        self._quick.submit(lambda: fit(True))
        self._thorough.submit(lambda: fit(False), after=_PAUSE)

    def _analysed(self, done: Analysis) -> None:
        current = self._desk.state
        if done.runs is not current.runs:
            return
        if done.question != current.question:
            # While a slider moves every answer is late, and a late one is better than none.
            moving = _kind(done.question) == _kind(current.question)
            if done.final or current.fitted or not moving:
                return
        if current.analysis is not None and current.analysis.runs is done.runs:
            same = current.analysis.question == done.question
            if same and current.analysis.final and not done.final:
                return
        self._desk.put(analysis=done)
        self._desk.show()


def _kind(question: Question) -> tuple[Any, ...]:
    """Return what of a question no slider moves."""
    return question.method, set(question.fixed), question.max_tokens, question.inference_tokens
