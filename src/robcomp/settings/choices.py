"""What can be named on the command line, read from conf/ and the sources: no torch, so lists are instant."""

import ast
from functools import cache
from pathlib import Path

GROUPS = ("dataset", "model", "method", "objective", "attack", "recipe")


@cache
def conf_dir() -> Path:
    """The configuration folder: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def choices(group: str) -> list[str]:
    """The names that `group=` accepts."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def summaries(group: str) -> dict[str, str]:
    """Each choice of `group` with the first comment line of its file."""
    return {name: _summary(conf_dir() / group / f"{name}.yaml") for name in choices(group)}


def attacks() -> dict[str, str]:
    """Each registered attack with the first sentence of its docstring, from the sources."""
    found = {}
    for path in sorted((Path(__file__).parents[1] / "attacks").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                for name in _registered(node):
                    found[name] = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    return dict(sorted(found.items()))


def _registered(node: ast.ClassDef) -> list[str]:
    calls = [d for d in node.decorator_list if isinstance(d, ast.Call) and isinstance(d.func, ast.Attribute)]
    return [c.args[0].value for c in calls if c.func.attr == "register" and isinstance(c.args[0], ast.Constant)]


def _summary(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").strip()
    return ""
