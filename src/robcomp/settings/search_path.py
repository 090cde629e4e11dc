"""Folders of the user's own laid out like conf/: `--config-dir DIR`, and Hydra's `hydra.searchpath=[DIR,...]`."""

import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from robcomp.errors import UserError
from robcomp.settings.choices import conf_dir

KEY = "hydra.searchpath"
EXAMPLE = f"{KEY}=[/home/me/conf]"


def folder(entry: str) -> Path:
    """The folder of an entry: a path, file://PATH or pkg://PACKAGE; UserError where there is none."""
    scheme, _, rest = entry.rpartition("://")
    if scheme not in ("", "file", "pkg") or not rest:
        raise UserError(f"{KEY}: '{entry}' cannot be read; give a folder, file://FOLDER or pkg://PACKAGE.")
    found = _package(rest) if scheme == "pkg" else Path(os.path.expanduser(rest)).resolve()
    if found is None or not found.is_dir():
        raise UserError(
            f"{entry} is no {'package' if scheme == 'pkg' else 'folder'}; --config-dir and {KEY} take one that is laid "
            "out like conf/, as in DIR/method/mine.yaml."
        )
    return found


def is_there(entry: str) -> bool:
    """Whether there is a folder for an entry."""
    try:
        return bool(folder(entry))
    except UserError:
        return False


def absolute(entry: str) -> str:
    """The entry so that it means the same wherever a later command starts; as it is where nothing lies there."""
    scheme, _, rest = entry.rpartition("://")
    path = os.path.expanduser(rest)
    return entry if scheme not in ("", "file") or not os.path.isdir(path) else f"file://{os.path.realpath(path)}"


def entries(values: Iterable[object]) -> list[str]:
    """The entries of all values that hydra.searchpath is given, each once; UserError for what is no list of paths."""
    found: list[str] = []
    for value in values:
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise UserError(f"{KEY}={value} is no list of folders; write {EXAMPLE}, or --config-dir DIR.")
        found += map(absolute, value)
    return list(dict.fromkeys(found))


def folders(found: Sequence[str]) -> list[Path]:
    """The folders of these entries, each once, conf/ itself left out."""
    return [path for path in dict.fromkeys(map(folder, found)) if path != conf_dir().resolve()]


def _package(name: str) -> Path | None:
    try:
        spec = find_spec(name.replace("/", "."))
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]).resolve() if places else None
