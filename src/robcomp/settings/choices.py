"""What can be named on the command line, read from conf/ without torch, so that help and lists of it are instant."""

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


def _summary(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").strip()
    return ""
