"""What can be named on the command line, read from conf/ without torch, so that help and lists of it are instant."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

GROUPS = ("dataset", "model", "method", "objective", "attack", "recipe")
EXPERIMENT = "experiment"  # the group that only a folder of the user's has: +experiment=NAME


@cache
def conf_dir() -> Path:
    """The configuration folder: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def files(group: str, folders: Sequence[Path] = ()) -> dict[str, list[Path]]:
    """Each name that `group=` accepts, with its file in conf/ and in the user's own `folders`: the first one counts."""
    found: dict[str, list[Path]] = {}
    for folder in (conf_dir(), *folders):
        for path in sorted((folder / group).rglob("*.yaml")):
            found.setdefault(path.relative_to(folder / group).with_suffix("").as_posix(), []).append(path)
    return found


def choices(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """The names that `group=` accepts, those of the user's own `folders` among them."""
    return sorted(files(group, folders))


def summaries(group: str, folders: Sequence[Path] = ()) -> dict[str, str]:
    """Each choice of `group` with the first comment line of its file."""
    found = files(group, folders)
    return {name: _summary(found[name][0]) for name in sorted(found)}


def _summary(path: Path) -> str:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").strip()
    return ""
