"""The panel: choose, launch, watch, fit and answer in one view."""

from __future__ import annotations

import asyncio
from html import escape
from typing import TYPE_CHECKING, Any, Self

from ..fit.compute import positive
from ..fit.parametric import as_table
from ..plots.report import allocation_table
from ..plots.still import isoflop_svg
from ..records import RunTable
from .analysis import Analysis, Question, analyse
from .answer_panel import AnswerPanel
from .board import Board
from .boards import board_of, board_of_recipe, open_sweep
from .comms import contained
from .controls import words
from .fit_panel import FitPanel
from .panel import framed, show
from .plan_panel import PlanPanel
from .snapshot import ALIVE, Snapshot
from .take_away import code_cell, table_budgets
from .ticker import shared_ticker
from .train_panel import TrainPanel
from .wording import answer_text, in_controls, plain

if TYPE_CHECKING:
    import os

    import pandas as pd

    from ..executors import Executor
    from ..fit import IsoFlopFit, LawFit
    from ..plan import SweepPlan
    from ..store import RunStore
    from ..sweep import Sweep
    from ..training.recipe import Recipe


class Dashboard:
    """The whole flow in one cell: plan, train, fit, answer.

    Run the cell again, or open a second dashboard, and it shows the sweep that runs already;
    after a restart of the kernel it shows what the store holds.

    Parameters
    ----------
    recipe : Recipe, optional
        What to train.
    plan : SweepPlan, optional
        Which runs; None: a guess, to be changed in the panel.
    runs : RunTable or DataFrame, optional
        Runs that exist already, instead of a recipe: analysis only, and torch is not loaded.
    store : path-like or RunStore
        Where runs are kept.
    executor : str or Executor, optional
        None: that of the sweep in the store, where there is one, else ``"threads"``.
    target : float, optional
        Budget to answer for, FLOP. None: ten times the largest run.

    Attributes
    ----------
    plan, sweep, runs, fit
        The objects behind what is shown, to go on with in Python.

    Examples
    --------
    >>> dash = Dashboard(recipe)                          # doctest: +SKIP
    >>> dash                                              # doctest: +SKIP
    >>> Dashboard(runs=RunTable.from_csv("runs.csv"))     # doctest: +SKIP
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        plan: SweepPlan | None = None,
        runs: RunTable | pd.DataFrame | None = None,
        store: str | os.PathLike[str] | RunStore = "runs.db",
        executor: str | Executor | None = None,
        target: float | None = None,
    ) -> None:
        if (recipe is None) == (runs is None) or (
            recipe is not None and not hasattr(recipe, "build_model")
        ):
            given = "" if recipe is None else f" You gave a {type(recipe).__name__}."
            raise TypeError(
                "give a recipe to train, or runs= to analyse: Dashboard(snb.Recipe(…)) or "
                "Dashboard(runs=snb.RunTable.from_csv(path)). A store is opened by "
                f"Dashboard.open(path, recipe), a sweep shown by Dashboard.watch(sweep).{given}"
            )
        question = Question(target=None if target is None else positive("target", target))
        if runs is not None:
            board = Board(runs=as_table(runs), question=question)
        else:
            assert recipe is not None
            board = board_of_recipe(
                recipe, plan=plan, store=store, executor=executor, question=question
            )
        self._build(board)

    @classmethod
    def watch(cls, sweep: Sweep) -> Self:
        """Show a sweep that was made, and perhaps started, in Python."""
        made = cls.__new__(cls)
        made._build(board_of(sweep))
        return made

    @classmethod
    def open(
        cls,
        store: str | os.PathLike[str],
        recipe: Recipe,
        *,
        executor: str | Executor | None = None,
    ) -> Self:
        """Show the sweep a store holds, and go on with the runs that were in training.

        Raises
        ------
        SweepError
            The store holds no sweep, or the recipe differs: says in what.
        """
        board = board_of_recipe(recipe, store=store, executor=executor)
        if board.snapshot.sweep is None:
            board = board_of(open_sweep(store, recipe, executor))
        sweep = board.snapshot.sweep
        if sweep is not None and sweep.state not in (*ALIVE, "finished"):
            board.start()
        made = cls.__new__(cls)
        made._build(board)
        return made

    def _build(self, board: Board) -> None:
        self.board = board
        trains = board.snapshot.recipe is not None
        self.plan_panel = PlanPanel(board) if trains else None
        self.train_panel = TrainPanel(board)
        self.fit_panel = FitPanel(board, alone=False)
        name = board.snapshot.recipe.name if trains and board.snapshot.recipe else "runs"
        self.answer_panel = AnswerPanel(
            board, name=f"Scaling law of {name}", chart=self.train_panel.isoflop
        )
        self._head = words(kind="snb-head")
        panels = [self.plan_panel, self.train_panel, self.fit_panel, self.answer_panel]
        self._panels = [panel for panel in panels if panel is not None]
        self.widget = framed(self._head, *(p.widget for p in self._panels))
        self._static: Any = None
        self._still: Any = None
        self._emitted: Analysis | None = None
        self._detach = board.attach(self.update)

    def update(self, snapshot: Snapshot) -> None:
        """Show a snapshot: the head line, and at the end of a sweep the static output."""
        head = head_html(snapshot)
        if self._head.value != head:
            self._head.value = head
        self._emit(snapshot)

    @property
    def plan(self) -> SweepPlan | None:
        """The plan as chosen; None before it is made, or where there is nothing to train."""
        return self.board.settle().plan

    @property
    def sweep(self) -> Sweep | None:
        """The sweep, once started."""
        shared_ticker().settle()
        return self.board.snapshot.sweep

    @property
    def runs(self) -> RunTable:
        """Finished runs, excluded ones with their reasons."""
        shared_ticker().settle()
        runs = self.board.snapshot.runs
        return RunTable.from_runs([]) if runs is None else runs

    @property
    def fit(self) -> IsoFlopFit | LawFit | None:
        """The fit behind the answer; None while there is none."""
        analysis = self.analysis
        return None if analysis is None else analysis.fit

    @property
    def analysis(self) -> Analysis | None:
        """The fit, the answer and their doubts, as of now."""
        shared_ticker().settle()
        s = self.board.snapshot
        if s.runs is None or not len(s.runs):
            return None
        if s.fitted:
            return s.analysis
        return analyse(s.runs, s.question, quick=False)

    @property
    def code(self) -> str:
        """A cell that gives the same numbers without the panel, from ``scaling_runs.csv``."""
        return code_cell(self.runs, self.board.snapshot.question)

    def start(self) -> Self:
        """Start the plan, as the button does; returns at once."""
        self.board.settle()
        self.board.start()
        shared_ticker().settle()
        return self

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the sweep ends; returns whether it has: False where none was started.

        The cell blocks meanwhile; ``await dash.finished()`` does not.
        """
        sweep = self.sweep
        if sweep is None:
            return self.board.snapshot.recipe is None
        return sweep.wait(timeout)

    async def finished(self) -> Self:
        """Wait until the sweep ends and its fit stands, while other cells' widgets go on."""
        while (sweep := self.board.snapshot.sweep) is None or not sweep.wait(0):
            if sweep is None and self.board.snapshot.recipe is None:
                break
            if sweep is not None and sweep.state not in (*ALIVE, "new"):
                break
            await asyncio.sleep(0.1)
        await asyncio.to_thread(self.board.settle)
        return self

    def close(self) -> None:
        """Take the panel away; the sweep trains on."""
        self._detach()
        for panel in self._panels:
            panel.close()
        for part in list(contained(self.widget)):
            part.close()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        _replace_in_its_cell(self)
        show(self.widget, "scaling_nb panel")
        out: Any = display
        # Replaced at the end of the sweep by a result that needs no kernel.
        # Two, because a reader of a bundle takes one of its kinds, and GitHub strips pictures
        # from HTML.
        self._static = out({"text/plain": ""}, raw=True, display_id=True)
        self._still = out({"text/plain": ""}, raw=True, display_id=True)
        self._emitted = None
        shared_ticker().call(lambda: self._emit(self.board.snapshot))

    def _emit(self, snapshot: Snapshot) -> None:
        analysis = snapshot.analysis
        if self._static is None or analysis is None or not analysis.final or snapshot.alive:
            return
        if analysis is self._emitted or snapshot.behind:
            return
        self._emitted = analysis
        said = {"text/html": static_html(snapshot), "text/plain": snapshot.sentence}
        self._static.update(said, raw=True)
        if analysis.iso is not None:
            drawn = {"image/svg+xml": isoflop_svg(analysis.iso), "text/plain": "IsoFLOP curves"}
            self._still.update(drawn, raw=True)


_SHOWN: dict[str, Dashboard] = {}


def _replace_in_its_cell(dash: Dashboard) -> None:
    """Close the dashboard that this cell showed before: its output is gone."""
    from IPython import get_ipython

    current: Any = get_ipython  # untyped
    shell = current()
    parent: Any = getattr(getattr(shell, "kernel", None), "get_parent", dict)()
    cell = parent.get("metadata", {}).get("cellId")
    if cell is None:
        return
    earlier = _SHOWN.get(cell)
    _SHOWN[cell] = dash
    if earlier is not None and earlier is not dash:
        earlier.close()


def head_html(snapshot: Snapshot) -> str:
    """Return the panel's first line: what is trained where, and whether it is safe."""
    recipe, sweep = snapshot.recipe, snapshot.sweep
    if recipe is None:
        n = 0 if snapshot.runs is None else len(snapshot.runs.columns["run_id"])
        return f"scaling_nb · {n} runs"
    parts = ["scaling_nb", escape(recipe.name)]
    places = getattr(sweep.executor, "places", None) if sweep is not None else None
    parts.append(
        escape(places() if places and sweep and sweep.state in ALIVE else str(recipe.device))
    )
    if sweep is not None:
        parts.append(
            f"<span title='runs are kept as they happen'>● {escape(sweep.store.path.name)}</span>"
        )
    return " · ".join(parts)


def static_html(snapshot: Snapshot) -> str:
    """Return the result for a reader without a kernel: the sentence, the table, the doubts."""
    analysis = snapshot.analysis
    assert analysis is not None
    if analysis.answer is None or analysis.asked is None:
        return f"<p>{escape(analysis.problem)}</p>"
    table = plain(
        allocation_table(analysis.asked, table_budgets(analysis)).to_html(index=False, border=0)
    )
    notes = "".join(f"<li>{escape(in_controls(str(note)))}</li>" for note in analysis.warnings)
    doubts = f"<p>Before you rely on it:</p><ul>{notes}</ul>" if notes else ""
    return f"<p><b>{escape(answer_text(analysis))}</b></p>{table}{doubts}"
