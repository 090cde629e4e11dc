"""What registers itself and which fields it has, read from the sources: importing them would wait for torch."""

import ast
from dataclasses import dataclass
from functools import cache
from inspect import cleandoc
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOMS = {
    "attack": ("attacks",),
    "model": ("models",),
    "method": ("trainers/method.py", "trainers/methods"),
    "settings": ("settings/schema.py", "data/config.py", "evaluation/suite.py", "trainers/stage.py"),
}


@dataclass(frozen=True)
class Source:
    """A class as it is written: the names that it registers under and of its bases, its fields -> their annotations."""

    name: str
    registered: str
    doc: str
    bases: tuple[str, ...]
    own: dict[str, str]


@cache
def classes(room: str) -> dict[str, Source]:
    """Every class in the files of a room, by its name."""
    found: dict[str, Source] = {}
    for place in ROOMS[room]:
        path = PACKAGE / place
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found |= {node.name: _source(node) for node in tree.body if isinstance(node, ast.ClassDef)}
    return found


def registered(room: str) -> dict[str, Source]:
    """The classes of a room by the name that they register under."""
    return {source.registered: source for source in classes(room).values() if source.registered}


def fields(room: str, source: Source) -> dict[str, str]:
    """The fields of a dataclass, those of its bases first, each with its annotation as it is written."""
    found: dict[str, str] = {}
    for base in source.bases:
        if base in classes(room):
            found |= fields(room, classes(room)[base])
    return found | source.own


def _source(node: ast.ClassDef) -> Source:
    names = [
        call.args[0].value
        for call in node.decorator_list
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".register")
        if call.args and isinstance(call.args[0], ast.Constant)
    ]
    own = {
        line.target.id: ast.unparse(line.annotation)
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        if not ast.unparse(line.annotation).startswith("ClassVar")
    }
    doc = cleandoc(ast.get_docstring(node) or "")
    return Source(node.name, str(names[0]) if names else "", doc, tuple(map(ast.unparse, node.bases)), own)
