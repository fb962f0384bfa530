"""``python -m scaling_nb recover``: salvage what is readable of a damaged store."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "recover",
        help="salvage what is readable of a damaged store",
        description="Copies every plan, run and piece of a curve that can still be read into a "
        "new store; the damaged file is not changed.",
    )
    parser.add_argument("store", type=Path, help="the damaged store, such as runs.db")
    parser.add_argument("--into", type=Path, metavar="FILE", help="default: runs.recovered.db")
    parser.set_defaults(run=_recover)


def _recover(options: argparse.Namespace) -> int:
    from .salvage import salvage

    store: Path = options.store
    into: Path = options.into or store.with_name(f"{store.stem}.recovered{store.suffix}")
    print(salvage(store, into))
    print(f"go on with it in place of {store}: training continues with the runs that are missing")
    return 0
