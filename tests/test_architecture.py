"""The rooms are as docs/architecture.md lists them: imports run one way, and every name leads to one thing."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import robcomp

PACKAGE = Path(robcomp.__file__).parent

# From the ground up. A room imports from those below it, never from a neighbour or from above.
FLOORS = [
    {"errors", "seeding", "storage"},
    {"hardware", "registry", "units"},
    {"projections", "report"},
    {"attacks", "data", "figures", "models"},
    {"artifact", "evaluation"},
    {"trainers"},
    {"settings"},
    {"runs"},
    {"analyses", "library", "sweeps", "tables"},
    {"cli"},
    {"__main__"},
]
TRAINERS = [
    {"adversary"},
    {"state"},
    {"compressor", "objectives"},
    {"meters", "stage"},
    {"attack_curriculum", "compressors", "loop", "method"},
    {"methods"},
]


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below robcomp; a package is its __init__."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: path for name, path in found.items() if name}


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """The modules of robcomp that a module imports anywhere: also inside functions and for type checkers alone."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            asked = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            asked = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        for module, part in asked:
            inner = module.removeprefix("robcomp").lstrip(".")
            if module.split(".")[0] == "robcomp":
                longer = f"{inner}.{part}".strip(".")
                yield longer if longer in MODULES else inner


def upward(floors: list[set[str]], room: int, names: list[str]) -> list[str]:
    """The imports that do not run down; `room`: which part of a dotted name says where a module is."""
    floor_of = {name: number for number, names in enumerate(floors) for name in names}
    wrong = []
    for name in names:
        for other in filter(None, imports(name)):
            here, there = name.split("."), other.split(".")
            if other in names and here[room] != there[room] and floor_of[there[room]] >= floor_of[here[room]]:
                wrong.append(f"{name} imports {other}")
    return wrong


def test_imports_run_down_from_room_to_room() -> None:
    assert {name.split(".")[0] for name in MODULES} == set().union(*FLOORS)
    assert upward(FLOORS, 0, list(MODULES)) == []


def test_in_trainers_the_contracts_know_neither_the_loop_nor_what_keeps_them() -> None:
    names = [name for name in MODULES if name.startswith("trainers.")]
    assert {name.split(".")[1] for name in names} == set().union(*TRAINERS)
    assert upward(TRAINERS, 1, names) == []


def test_no_modules_import_each_other() -> None:
    faces = {name for name, path in MODULES.items() if path.name == "__init__.py"}  # they only hand names on
    graph = {name: {other for other in imports(name) if other and other not in faces} for name in set(MODULES) - faces}
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_an_import_that_runs_up_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "l0_ball.py").write_text("def f():\n    from robcomp.trainers.stage import Stage\n")
    monkeypatch.setitem(MODULES, "projections.l0_ball", tmp_path / "l0_ball.py")
    assert upward(FLOORS, 0, list(MODULES)) == ["projections.l0_ball imports trainers.stage"]


def test_few_modules_stand_outside_the_rooms() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert len(loose) <= 6, loose


def test_nothing_is_taken_from_the_inside_of_hydra() -> None:
    assert not [name for name, path in MODULES.items() if "hydra._internal" in path.read_text(encoding="utf-8")]


def loaded() -> Iterator[ModuleType]:
    for info in pkgutil.walk_packages(robcomp.__path__, "robcomp."):
        if not info.name.endswith("__main__"):
            yield importlib.import_module(info.name)


def test_no_name_hides_a_module() -> None:
    """`robcomp.projections.l0` is the function, and no module has its name."""
    for module in loaded():
        parent, _, name = module.__name__.rpartition(".")
        assert getattr(importlib.import_module(parent), name) is module, module.__name__
