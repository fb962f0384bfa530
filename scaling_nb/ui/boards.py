"""Which board a sweep, a recipe or a table has: panels of one sweep share one."""

from __future__ import annotations

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
    executor: str | Executor = "threads",
    question: Question | None = None,
) -> Board:
    """Return the board of a recipe: the one of its sweep, one from its store, or a new one."""
    path = Path(store.path if hasattr(store, "path") else store).resolve()
    for board in _BOARDS:
        sweep = board.snapshot.sweep
        if sweep is not None and sweep.recipe.recipe_id == recipe.recipe_id:
            same_plan = plan is None or plan.plan_id == sweep.plan.plan_id
            if Path(sweep.store.path).resolve() == path and (same_plan or sweep.state in ALIVE):
                return board
    sweep = _stored(recipe, path, executor) if plan is None and path.exists() else None
    board = Board(
        recipe=recipe, plan=plan, sweep=sweep, store=store, executor=executor, question=question
    )
    _BOARDS.append(board)
    return board


def _stored(recipe: Recipe, path: Path, executor: str | Executor) -> Sweep | None:
    """Return the sweep that a store holds of this very recipe, or None."""
    from ..sweep import Sweep

    try:
        return Sweep.open(path, recipe, executor=executor)
    except ScalingError:
        return None
