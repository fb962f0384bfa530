"""Imports point down only: the table of rooms, enforced."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "scaling_nb"

ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "plain_text": set(),
    "flops": {"errors"},
    "budgets": set(),
    "columns": {"errors", "flops", "budgets"},
    "reading": {"errors", "flops", "budgets", "columns"},
    "run_spec": {"flops"},
    "records": {"errors", "flops", "budgets", "columns", "reading", "run_spec"},
    "curves": {"records", "errors"},
    "recordings": {"records", "errors"},
    "events": {"records"},
    "cost": {"records"},
    "progress": {"records", "cost"},
    "grid": {"errors", "flops", "cost"},
    "affordable": {"errors", "flops", "grid"},
    "cells": {"records", "flops", "errors", "grid"},
    "plan": {"records", "flops", "errors", "cost", "grid", "affordable", "cells"},
    "plan_file": {"plan", "errors"},
    "disk": {"errors"},
    "database": {"disk", "errors"},
    "store": {"records", "events", "plan", "errors", "disk", "database"},
    "laws": {"errors", "records", "flops"},
    "fit": {"laws", "records", "errors", "flops", "budgets", "curves", "plain_text"},
    "simulation": {"laws", "records", "errors", "curves"},
    "plots": {"records", "fit", "laws", "errors", "simulation", "curves"},
    "fit_command": {"fit", "plots", "laws", "records", "flops", "errors"},
    "datasets": {"errors"},
    "models": {"flops", "errors"},
    "training": {"records", "events", "errors", "flops", "cost", "grid"},
    "executors": {"training", "records", "events", "errors"},
    "status": {"records", "cost"},
    "book": {"plan", "records", "events", "progress", "status"},
    "schedule": {"records", "cost"},
    "lease": {"store", "status", "errors"},
    "reopening": {"store", "errors"},
    "follower": {"store", "records", "events"},
    "running": {"store", "plan", "errors"},
    "metering": set(),
    "salvage": {"store", "errors", "plan", "records"},
    "recover_command": {"salvage"},
    "view": {"book", "errors", "events", "follower", "lease", "metering", "plan", "records",
             "status", "store"},
    "steering": {"view", "executors", "records", "errors", "status", "training"},
    "sweep": {"view", "steering", "reopening", "plan", "store", "events", "executors", "records",
              "errors", "book", "status", "training", "schedule", "lease", "follower", "running",
              "cost", "metering"},
    "api": {"plan", "sweep", "store", "events", "executors", "fit", "plots", "records", "errors",
            "training", "plain_text"},
    "checks": {"training", "plan", "plots", "records", "errors"},
    "classroom": {"events", "fit", "laws", "plots", "records", "recordings", "ui", "errors"},
    "quickstart": {"api", "datasets", "models", "plan", "sweep", "training", "plots", "errors",
                   "executors"},
    "ui": {"plan", "sweep", "store", "events", "executors", "training", "fit", "plots", "laws",
           "records", "curves", "flops", "errors", "cost", "grid"},
    "__main__": {"quickstart", "api", "sweep", "plan", "datasets", "training", "errors",
                 "fit_command", "recover_command", "plan_file", "executors"},
}  # fmt: skip
PUBLIC_FACE = "__init__"


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Return the package's modules that a file imports anywhere, typing included."""
    here = ["scaling_nb", *path.relative_to(PACKAGE).with_suffix("").parts]
    if here[-1] == "__init__":
        here = [*here[:-1], "__init__"]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else []
            target = [*base, *(node.module or "").split(".")] if node.module else base
            if target[:1] == ["scaling_nb"]:
                names = [a.name for a in node.names]
                found.update(".".join([*target, name]) for name in names)
    return found


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_every_room_is_in_the_table():
    assert {room_of(p) for p in sources()} - {PUBLIC_FACE} <= set(ROOMS)


def test_imports_point_down_only():
    wrong = []
    for path in sources():
        room = room_of(path)
        if room == PUBLIC_FACE:
            continue
        for module in imported_modules(path):
            target = module.split(".")[1]
            if target in ROOMS and target not in ROOMS[room] | {room}:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {target}")
    assert sorted(set(wrong)) == []


def test_no_circle_among_rooms():
    order: list[str] = []
    rest = {room: set(down) for room, down in ROOMS.items()}
    while rest:
        free = [room for room, down in rest.items() if down <= set(order)]
        assert free, f"a circle among {sorted(rest)}"
        order += free
        rest = {room: down for room, down in rest.items() if room not in free}


def test_no_circle_inside_a_room():
    files = {".".join(["scaling_nb", *p.relative_to(PACKAGE).with_suffix("").parts]): p
             for p in sources() if room_of(p) != PUBLIC_FACE}  # fmt: skip
    graph = {}
    for name, path in files.items():
        deps = set()
        for module in imported_modules(path):
            package = f"{module}.__init__"
            for candidate in (module, package, module.rpartition(".")[0]):
                if candidate in files and candidate != name:
                    deps.add(candidate)
                    break
        graph[name] = deps
    done: set[str] = set()
    while True:
        free = {n for n, deps in graph.items() if n not in done and deps <= done}
        if not free:
            break
        done |= free
    assert sorted(set(graph) - done) == []


def test_the_wings_do_not_know_each_other():
    training = {"training", "executors", "sweep", "plan", "store"}
    analysis = {"laws", "fit", "simulation", "plots"}
    for path in sources():
        targets = {module.split(".")[1] for module in imported_modules(path)}
        if room_of(path) in training:
            assert not targets & analysis, path
        if room_of(path) in analysis:
            assert not targets & training, path
