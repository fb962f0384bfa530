"""The whole flow in one call: recipe, plan, sweep, fit, answer."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from .errors import FitError, ScalingWarning, SweepError
from .events import Noted
from .executors import Executor
from .fit import Allocation, IsoFlopFit, LawFit, fit_isoflop, fit_law
from .plain_text import plain_text
from .plan import SweepPlan, plan_sweep
from .records import RunTable
from .store import RunStore
from .sweep import Sweep
from .training.optimizers import DEFAULTS as OPTIMIZER_SETTINGS
from .training.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

Curves = Mapping[str, tuple[NDArray[np.int64], NDArray[np.float32]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a sweep answers: how big, how much data, which loss, each with its interval.

    Attributes
    ----------
    plan : SweepPlan
    runs : RunTable
        Finished runs.
    fit : IsoFlopFit
        Approach 2; its power laws give the answers.
    law : LawFit or None
        Approach 3 on the same runs, to compare with; None where there are too few runs.
    curves : mapping of run_id to (tokens, loss)
        Training curves.
    """

    plan: SweepPlan
    runs: RunTable
    fit: IsoFlopFit
    law: LawFit | None
    curves: Curves = field(repr=False)

    def predict(self, compute: float) -> Allocation:
        """Return N, D and loss for a budget in FLOP, with intervals.

        Raises
        ------
        FitError
            If fewer than two budgets have an optimum.
        """
        return self.fit.allocate(compute)

    def chinchilla_table(self, budgets: Sequence[float] | None = None) -> pd.DataFrame:
        """Return compute-optimal N, D and loss with intervals, one row a budget.

        Parameters
        ----------
        budgets : sequence of float, FLOP, optional
            Default: the planned budgets, then ten and a hundred times the largest.
        """
        asked = self.budgets if budgets is None else np.atleast_1d(budgets).tolist()
        table: pd.DataFrame = self.fit.chinchilla_table(asked)
        return table

    def plot(self) -> go.Figure:
        """Return the IsoFLOP curves with their minima, and N*(C) with its interval."""
        from .plots import plot_isoflop

        return plot_isoflop(self.fit)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the data cannot tell, as sentences with cause and remedy."""
        return tuple(str(note) for note in self.fit.warnings)

    @property
    def answers(self) -> bool:
        """Whether enough budgets have an optimum for :meth:`predict` to answer."""
        return self.fit.trends is not None

    @property
    def budgets(self) -> tuple[float, ...]:
        """The planned budgets, then ten and a hundred times the largest, FLOP."""
        largest = self.plan.budgets[-1]
        return (*self.plan.budgets, 10 * largest, 100 * largest)

    @property
    def target(self) -> float:
        """The budget that is answered for where none is named: ten times the largest, FLOP."""
        return 10 * self.plan.budgets[-1]

    _repr_pretty_ = plain_text

    def __str__(self) -> str:
        from .plots.report import allocation_table, answer_sentence

        if not self.answers:
            return str(self.fit)
        table = allocation_table(self.fit, self.budgets).to_string(index=False)
        return f"{self.fit}\n\n{table}\n\n{answer_sentence(self.predict(self.target))}"

    def _repr_html_(self) -> str:
        from .plots.report import allocation_table, answer_sentence

        if not self.answers:
            return self.fit._repr_html_()
        table = allocation_table(self.fit, self.budgets).to_html(index=False)
        answer = answer_sentence(self.predict(self.target))
        return f"<p><b>{answer}</b></p>{table}{self.fit._repr_html_()}"


def analyse(plan: SweepPlan, runs: RunTable, curves: Curves | None = None) -> Result:
    """Fit the finished runs of a plan.

    Raises
    ------
    TooFewRunsError
        If the runs do not fall into IsoFLOP slices at all.
    """
    try:
        law = fit_law(runs, flops="counted")
    except FitError:
        law = None
    return Result(plan=plan, runs=runs, fit=fit_isoflop(runs), law=law, curves=dict(curves or {}))


def result_of(sweep: Sweep) -> Result:
    """Fit what a sweep has finished so far.

    Raises
    ------
    SweepError
        If that is no run: the message says why.
    """
    _refuse_unfinished(sweep)
    sweep.store.flush()
    curves = {run_id: sweep.store.curve(run_id) for run_id in sweep.runs.run_ids}
    return analyse(sweep.plan, sweep.runs, curves)


@overload
def find_optimal(
    build_model: Callable[..., Any] | Recipe,
    *,
    compute_budgets: Sequence[float] | tuple[float, float, int],
    train: Literal[True] = True,
    n_sizes: int | None = None,
    seeds: int = 1,
    store: str | os.PathLike[str] | RunStore = "runs.db",
    executor: str | Executor = "threads",
    progress: bool = True,
    plan_options: Mapping[str, Any] | None = None,
    **recipe_options: Any,
) -> Result: ...
@overload
def find_optimal(
    build_model: Callable[..., Any] | Recipe,
    *,
    compute_budgets: Sequence[float] | tuple[float, float, int],
    train: Literal[False],
    n_sizes: int | None = None,
    seeds: int = 1,
    store: str | os.PathLike[str] | RunStore = "runs.db",
    executor: str | Executor = "threads",
    progress: bool = True,
    plan_options: Mapping[str, Any] | None = None,
    **recipe_options: Any,
) -> SweepPlan: ...
def find_optimal(
    build_model: Callable[..., Any] | Recipe,
    *,
    compute_budgets: Sequence[float] | tuple[float, float, int],
    train: bool = True,
    n_sizes: int | None = None,
    seeds: int = 1,
    store: str | os.PathLike[str] | RunStore = "runs.db",
    executor: str | Executor = "threads",
    progress: bool = True,
    plan_options: Mapping[str, Any] | None = None,
    **recipe_options: Any,
) -> Result | SweepPlan:
    """Train an IsoFLOP sweep of a model and return what it says about larger budgets.

    Under ``torchrun`` the ranks share the store: one trains, the others wait for it, and all
    return the same result.

    Parameters
    ----------
    build_model : class, function or Recipe
        With a `Recipe`, `recipe_options` stay empty.
    compute_budgets : sequence of float, FLOP; or (low, high, count)
    train : bool
        False returns the plan and trains nothing.
    n_sizes, seeds : int
        Sizes per budget, repeats of each run.
    store : path-like or RunStore
        Where runs go; a store that holds some of them already is continued.
    executor : str or Executor
    progress : bool
        Show a bar with the time left.
    plan_options : mapping, optional
        Other arguments of :func:`plan_sweep`, such as ``{"reuse": "cooldown"}``.
    **recipe_options
        Arguments of :class:`Recipe`: ``size``, ``dataset``, ``loss_fn``, …; those of
        :func:`plan_sweep` are passed on to it.

    Returns
    -------
    Result, or SweepPlan with ``train=False``

    Raises
    ------
    RecipeError, PlanError
        Before anything is trained.
    SweepError
        If no run finished; the message says why.

    Examples
    --------
    >>> result = find_optimal(                                        # doctest: +SKIP
    ...     MyModel, size="width", dataset=tokens, compute_budgets=[1e12, 3e12, 1e13])
    >>> result.predict(1e15)                                          # doctest: +SKIP
    """
    known = inspect.signature(plan_sweep).parameters
    for_plan = {k: recipe_options.pop(k) for k in list(recipe_options) if k in known}
    if isinstance(build_model, Recipe):
        if recipe_options:
            raise TypeError(
                f"{', '.join(recipe_options)} belong to the Recipe, which is given already."
            )
        recipe = build_model
    else:
        _refuse_unknown(recipe_options, known)
        recipe = Recipe(build_model, **recipe_options)
    plan = plan_sweep(recipe, compute_budgets, n_sizes, seeds, **for_plan, **(plan_options or {}))
    if not train:
        return plan
    sweep = Sweep(recipe, plan, store=store, executor=executor).start()
    follow(sweep, progress=progress)
    return finished_result(sweep)


def _refuse_unknown(options: Mapping[str, Any], of_plan: Collection[str]) -> None:
    """Raise a `TypeError` that says where an argument belongs which nothing here takes."""
    of_recipe = inspect.signature(Recipe).parameters
    unknown = [name for name in options if name not in of_recipe]
    if not unknown:
        return
    if settings := [name for name in unknown if name in OPTIMIZER_SETTINGS]:
        given = ", ".join(f"{name!r}: {options[name]!r}" for name in settings)
        be = "is a setting" if len(settings) == 1 else "are settings"
        raise TypeError(f"{', '.join(settings)} {be} of the optimizer. Give optimizer={{{given}}}.")
    near = difflib.get_close_matches(unknown[0], [*of_recipe, *of_plan], n=1)
    raise TypeError(
        f"find_optimal has no argument {unknown[0]!r}"
        + (f"; did you mean {near[0]!r}?" if near else ".")
        + " It takes those of Recipe and of plan_sweep."
    )


def finished_result(sweep: Sweep) -> Result:
    """Return the result of a sweep that ended; warn of runs that did not finish, or never began.

    Raises
    ------
    SweepError
        If none finished.
    """
    _refuse_unfinished(sweep)
    failures = sweep.failures
    left = len(sweep.plan.runs) - len(sweep.runs)
    if left:
        reasons = {f"{run.status}: {run.message}" for run in failures}
        if left > len(failures):
            reasons.add(f"{left - len(failures)} were not trained: start() goes on with them")
        warnings.warn(
            f"{left} of {len(sweep.plan.runs)} runs did not finish ({', '.join(sorted(reasons))}). "
            "They are left out of the fit.",
            ScalingWarning,
            stacklevel=3,
        )
    return result_of(sweep)


def _refuse_unfinished(sweep: Sweep) -> None:
    if len(sweep.runs):
        return
    failures = sweep.failures
    statuses = {run.status for run in failures}
    n = len(sweep.plan.runs)
    if not failures:
        raise SweepError(
            f"no run finished yet, of {n} that are planned. Wait for some: sweep.status() says "
            "where it stands."
        )
    fact, remedy = "no run finished", "mend the recipe"
    if len(failures) == n and statuses == {"diverged"}:
        fact = f"all {n} runs diverged" if n > 1 else "the one run diverged"
        remedy = "lower the learning rate or mend the loss"
    raise SweepError(
        f"{fact} ({failures[0].message.rstrip('.')}). sweep.failures lists them; {remedy} and "
        "start again."
    )


def follow(
    sweep: Sweep, *, progress: bool = True, background: bool = False, poll: float = 0.5
) -> None:
    """Show a bar of finished runs and the time left until a sweep ends.

    What keeps the sweep from going on, such as a full disk, is printed, and tried again every few
    seconds; so is what an executor notes, such as a machine that was lost. A sweep that another
    process trains is watched; if that process is killed, the sweep goes on here.

    Parameters
    ----------
    progress : bool
        False only waits.
    background : bool
        Return at once; the bar of a notebook goes on while other cells run.
    poll : float, seconds
        Time between two looks.

    Raises
    ------
    SweepError
        The sweep was not started, or failed.
    """
    if sweep.state == "new":
        raise SweepError("the sweep has not been started. Call sweep.start() first.")
    bar = tqdm(
        total=len(sweep.plan.runs),
        disable=not progress,
        unit="run",
        file=sys.stderr,
        bar_format="{desc} {bar} {n_fmt}/{total_fmt}{postfix}",
    )
    if background:
        target = threading.Thread(target=_watch, args=(sweep, bar, poll), daemon=True)
        target.start()
    else:
        _watch(sweep, bar, poll)
        sweep.wait(0)


RETRY_SECONDS = 5.0
"""Between two tries to go on after the disk took no more."""


def _watch(sweep: Sweep, bar: tqdm[Any], poll: float) -> None:
    said, tried = "", time.monotonic()
    notes: deque[str] = deque()
    disconnect = sweep.events.connect(
        lambda event: notes.append(event.message) if isinstance(event, Noted) else None
    )
    with bar, contextlib.ExitStack() as ending:
        ending.callback(disconnect)
        while True:
            with contextlib.suppress(SweepError):
                sweep.wait(poll)
            status = sweep.status()
            while notes:
                bar.write(f"note: {notes.popleft()}", file=sys.stderr)
            bar.n = status.n_done
            bar.set_description_str(status.state, refresh=False)
            bar.set_postfix_str(status.eta_text(), refresh=True)
            if status.state in ("finished", "cancelled", "failed"):
                if not sweep.abandoned:
                    return
                bar.write(f"note: {status.problem}: going on here", file=sys.stderr)
                sweep.start()
            elif status.state == "paused" and status.problem and not sweep.watched:
                if status.problem != said:
                    said = status.problem
                    again = f"It is tried again every {RETRY_SECONDS:g} s."
                    bar.write(f"paused: {said}. {again}", file=sys.stderr)
                if time.monotonic() - tried > RETRY_SECONDS:
                    tried = time.monotonic()
                    with contextlib.suppress(SweepError):
                        sweep.resume()
