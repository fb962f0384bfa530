"""Which board a sweep, a recipe or a table has: panels of one sweep share one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ScalingError
from ..records import RunTable
from .analysis import Question
from .board import Board
from .snapshot import ALIVE

if TYPE_CHECKING:
    import os

    from ..executors import Executor
    from ..plan import SweepPlan
    from ..store import RunStore
    from ..sweep import Sweep
    from ..training.recipe import Recipe

_BOARDS: list[Board] = []


def board_of(source: Any, **options: Any) -> Board:
    """Return the board of a sweep, recipe, table or board; the one it has, if it has one."""
    if isinstance(source, Board):
        return source
    if isinstance(source, RunTable):
        return Board(runs=source, **options)
    if hasattr(source, "build_model"):
        return board_of_recipe(source, **options)
    for board in _BOARDS:
        if board.snapshot.sweep is source:
            return board
    board = Board(sweep=source, **options)
    _BOARDS.append(board)
    return board


def board_of_recipe(
    recipe: Recipe,
    *,
    plan: SweepPlan | None = None,
    store: str | os.PathLike[str] | RunStore = "runs.db",
    executor: str | Executor | None = None,
    question: Question | None = None,
) -> Board:
    """Return the board of a recipe: the one of its sweep, one from its store, or a new one."""
    path = Path(store.path if hasattr(store, "path") else store).resolve()
    for board in _BOARDS:
        sweep = board.snapshot.sweep
        if sweep is None or Path(sweep.store.path).resolve() != path:
            continue
        if sweep.recipe.recipe_id == scheduled(recipe, sweep.plan).recipe_id:
            known = plan is None or _holds(sweep.plan, plan)
            if known or sweep.state in ALIVE:
                if question is not None and question.target is not None:
                    board.ask(target=question.target)
                return board
    sweep = _stored(recipe, plan, path, executor) if path.exists() else None
    board = Board(
        recipe=recipe, plan=plan, sweep=sweep, store=store, executor=executor, question=question
    )
    _BOARDS.append(board)
    return board


def scheduled(recipe: Recipe, plan: SweepPlan) -> Recipe:
    """Return the recipe with the plan's schedule, which may have been chosen in the panel."""
    schedule = plan.runs[0].schedule if plan.runs else recipe.schedule
    if schedule == recipe.schedule:
        return recipe
    return dataclasses.replace(recipe, schedule=schedule)  # type: ignore[arg-type]


def open_sweep(
    store: str | os.PathLike[str] | Path, recipe: Recipe, executor: str | Executor | None
) -> Sweep:
    """Return the newest sweep of a store, whatever schedule was chosen for it.

    Raises
    ------
    SweepError
        The store holds no sweep, or the recipe differs in more than its schedule.
    """
    from ..store import RunStore
    from ..sweep import Sweep

    with RunStore(store) as opened:
        stored = opened.load_sweep()
    recipe = recipe if stored is None else scheduled(recipe, stored.plan)
    return Sweep.open(store, recipe, executor=executor)


def _holds(plan: SweepPlan, part: SweepPlan) -> bool:
    return {run.run_id for run in part.runs} <= {run.run_id for run in plan.runs}


def _stored(
    recipe: Recipe, plan: SweepPlan | None, path: Path, executor: str | Executor | None
) -> Sweep | None:
    """Return the sweep that a store holds of this recipe, or of this plan, or None."""
    try:
        sweep = open_sweep(path, recipe, executor)
    except ScalingError:
        return None
    if plan is None or _holds(sweep.plan, plan):
        return sweep
    sweep.store.close()
    return None
