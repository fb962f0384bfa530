"""``python -m scaling_nb quickstart | plan | run | fit | resume``: the flow without a notebook."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import fit_command, recover_command
from .errors import FitError, RecipeError, ScalingError

if TYPE_CHECKING:
    from .executors import Executor
    from .sweep import Sweep
    from .training.recipe import Recipe

EXIT_INTERRUPTED = 130
QUICKSTART = "quickstart"
"""Names the ready-made recipe in a plan's file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status. Errors of this package print as sentences."""
    options = _parser().parse_args(arguments)
    words = getattr(options, "words", str)
    warnings.showwarning = lambda message, *_, **__: print(
        f"note: {words(str(message))}", file=sys.stderr
    )
    try:
        status: int = options.run(options)
        return status
    except (ScalingError, OSError) as error:
        print(f"error: {words(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped. What was trained is kept: run it again to go on.", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scaling_nb",
        description="From a compute budget to a model size, a token count and a loss.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_quickstart(commands)
    _add_plan(commands)
    _add_run(commands)
    _add_resume(commands)
    fit_command.add_parser(commands)
    recover_command.add_parser(commands)
    return parser


def _add_quickstart(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "quickstart",
        help="train the ready-made sweep on this machine and answer",
        description="Train a small GPT on the standard library's source text at five compute "
        "budgets and print how big a model and how much data each budget wants. Interrupted, it "
        "continues where it stopped when it is run again.",
    )
    parser.add_argument("--out", type=Path, default=Path("scaling_nb_quickstart"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--budgets", type=float, nargs="+", metavar="FLOP")
    parser.add_argument("--quick", action="store_true", help="under 30 s, and coarse")
    parser.set_defaults(run=_quickstart)


def _add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "plan",
        help="show the runs of a sweep, with its time, memory and energy; train nothing",
    )
    parser.add_argument(
        "recipe",
        nargs="?",
        help="FILE.py:NAME or package.module:NAME of a Recipe (default: the ready-made one)",
    )
    parser.add_argument("--budgets", type=float, nargs="+", metavar="FLOP")
    parser.add_argument("--sizes-per-budget", type=int, metavar="K")
    parser.add_argument("--seeds", type=int, default=1, metavar="K")
    parser.add_argument("--reuse", choices=["cooldown"], help="share a trunk between budgets")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the plan, for `run`; times nothing"
    )
    parser.set_defaults(run=_plan)


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="train a plan, here or on a cluster, without a notebook",
        description="Train the runs of a plan that `plan --out` or write_plan wrote, and answer. "
        "Run again with the same store, it continues where it stopped.",
    )
    parser.add_argument("plan", type=Path, help="such as plan.json")
    parser.add_argument(
        "--recipe", help="FILE.py:NAME or package.module:NAME (default: as the plan says)"
    )
    parser.add_argument("--store", type=Path, metavar="DB", help="default: beside the plan")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the store's folder")
    parser.add_argument(
        "--executor", default="auto", choices=["auto", "inline", "processes", "ray", "threads"]
    )
    cluster = parser.add_argument_group("with --executor ray")
    cluster.add_argument("--address", help="of the cluster, such as 10.0.0.1:6379")
    cluster.add_argument("--num-cpus", type=float, metavar="K", help="CPUs a run takes")
    cluster.add_argument("--num-gpus", type=float, metavar="K", help="GPUs a run takes")
    cluster.add_argument("--storage", help="shared folder or fsspec URL for checkpoints")
    parser.set_defaults(run=_run)


def _add_resume(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("resume", help="go on with the sweep of a store")
    parser.add_argument("store", type=Path, help="such as runs.db")
    parser.add_argument("recipe", help="FILE.py:NAME or package.module:NAME of its Recipe")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the store's folder")
    parser.set_defaults(run=_resume)


def _quickstart(options: argparse.Namespace) -> int:
    from .datasets import stdlib_text
    from .quickstart import quickstart_sweep

    began = time.monotonic()
    if options.quick:
        print("--quick: few steps a run, so the answer is coarse; see how wide its intervals are.")
    print(stdlib_text().describe())
    sweep = quickstart_sweep(
        options.out, seed=options.seed, budgets=options.budgets, quick=options.quick
    )
    words = ["quickstart", "--out", str(options.out), "--seed", str(options.seed)]
    words += ["--quick"] if options.quick else []
    words += ["--budgets", *map(repr, options.budgets)] if options.budgets else []
    again = f"python -m scaling_nb {shlex.join(words)}"
    status = _train_and_report(sweep, options.out, again, title="Quick start")
    if status == 0:
        print(f"took {time.monotonic() - began:.0f} s")
    return status


def _plan(options: argparse.Namespace) -> int:
    from .plan import plan_sweep
    from .plan_file import write_plan
    from .quickstart import quickstart_plan, quickstart_recipe

    if options.recipe is None:
        plan = quickstart_plan(
            quickstart_recipe(),
            options.budgets,
            seeds=options.seeds,
            n_sizes=options.sizes_per_budget,
        )
    else:
        if not options.budgets:
            print("error: --budgets is missing. Give FLOP, such as 1e12 3e12.", file=sys.stderr)
            return 2
        plan = plan_sweep(
            _load_recipe(options.recipe),
            options.budgets,
            options.sizes_per_budget,
            options.seeds,
            reuse=options.reuse,
        )
    print(plan)
    if options.out is not None:
        write_plan(plan, options.out, recipe=options.recipe or QUICKSTART)
        print(f"wrote {options.out}. To train it: python -m scaling_nb run {options.out}")
        return 0
    print(plan.estimate())
    return 0


def _run(options: argparse.Namespace) -> int:
    from .executors import RayExecutor
    from .plan_file import read_plan
    from .sweep import Sweep

    plan, name = read_plan(options.plan)
    name = options.recipe or name
    if not name:
        raise RecipeError(f"{options.plan} does not say where its recipe is. Give --recipe.")
    recipe = _load_recipe(name)
    executor: str | Executor = options.executor
    if executor == "ray":
        executor = RayExecutor(
            options.address,
            num_cpus=options.num_cpus,
            num_gpus=options.num_gpus,
            storage=options.storage,
        )
    store = options.store or options.plan.with_suffix(".db")
    sweep = Sweep(recipe, dataclasses.replace(plan, recipe=recipe), store=store, executor=executor)
    again = shlex.join(["python", "-m", "scaling_nb", *sys.argv[1:]])
    return _train_and_report(sweep, options.out or store.parent, again, title="Sweep")


def _resume(options: argparse.Namespace) -> int:
    from .sweep import Sweep

    sweep = Sweep.open(options.store, _load_recipe(options.recipe))
    words = ["resume", str(options.store), options.recipe]
    again = f"python -m scaling_nb {shlex.join(words)}"
    return _train_and_report(sweep, options.out or options.store.parent, again, title="Sweep")


def _train_and_report(sweep: Sweep, out: Path, again: str, *, title: str) -> int:
    from .api import finished_result, follow
    from .quickstart import write_outputs

    print(sweep.plan.summary())
    sweep.start()
    try:
        follow(sweep)
    except KeyboardInterrupt:
        sweep.cancel()
        sweep.wait(timeout=60)
        status = sweep.status()
        kept = sum(state == "finished" for state in status.runs.values())
        print(
            f"\nstopped: {kept} of {status.n_runs} runs are finished and kept in "
            f"{sweep.store.path}.\nTo go on: {again}"
        )
        return EXIT_INTERRUPTED
    try:
        result = finished_result(sweep)
    except FitError as error:
        print(f"the runs are in {sweep.store.path}, but give no answer: {error}", file=sys.stderr)
        return 1
    print(f"\n{result}\n")
    for path in write_outputs(result, out, title=f"{title}: {sweep.recipe.name}"):
        print(f"wrote {path}")
    sweep.store.close()
    return 0


def _load_recipe(name: str) -> Recipe:
    import importlib
    import runpy

    from .training.recipe import Recipe

    if name == QUICKSTART:
        from .quickstart import quickstart_recipe

        return quickstart_recipe()
    place, _, attribute = name.rpartition(":")
    if not place:
        raise RecipeError(f"{name!r} names no recipe. Give FILE.py:NAME or package.module:NAME.")
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise RecipeError(f"there is no file {place}. Give the path of a Python file.")
        found = runpy.run_path(place).get(attribute)
    else:
        try:
            found = getattr(importlib.import_module(place), attribute, None)
        except ImportError as error:
            raise RecipeError(
                f"{place} cannot be imported: {error}. Name a module or a file."
            ) from None
    if not isinstance(found, Recipe):
        raise RecipeError(
            f"{attribute} in {place} is {'missing' if found is None else type(found).__name__}. "
            "It must be a Recipe."
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
