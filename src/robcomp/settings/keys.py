"""The keys of the configuration under the groups that are chosen, read from YAML and sources without torch or Hydra."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from robcomp.settings import registered
from robcomp.settings.choices import EXPERIMENT, GROUPS, conf_dir, files

# What a suite says of an attack beside the attack's own settings
OF_ATTACK = {"attack": "str", "excluded": "bool", "survivors": "bool"}
Tree = dict[str, "Tree | str"]  # a key -> the keys under it, or the type of its value


def tree(chosen: Mapping[str, str], folders: Sequence[Path] = ()) -> Tree:
    """Every key there is with these choices of groups (the others as by default); of a value its type, as written.

    `folders`: the user's own, laid out like conf/.
    """
    names = defaults(chosen, folders)
    found = _of_class("settings", "Config")
    for group in ("model", "method"):
        kind = _schema(group, names.get(group, ""), folders)
        entries = registered.registered(group)
        found[group] = _of_class(group, entries[kind].name) if kind in entries else {}
    suite = _of_class("settings", "SuiteConfig")
    suite["attacks"] = _attacks(names.get("attack", ""), folders)
    schedule: Tree = {name: _of_class("settings", "Schedule") for name in _schedules()}
    return found | {"attack": suite, "schedule": schedule}


def defaults(chosen: Mapping[str, str], folders: Sequence[Path] = ()) -> dict[str, str]:
    """The choice of every group: conf/config.yaml's, what the chosen files put in its place, and the `chosen` ones."""
    names: dict[str, str] = {}
    for line in _defaults(_read(conf_dir() / "config.yaml")):
        names |= {group: name for group, name in line.items() if group in GROUPS}
    names |= chosen
    for group in ("dataset", "recipe", EXPERIMENT):
        for line in _defaults(_file(group, names.get(group, ""), folders)):
            for key, name in line.items():
                target = key.removeprefix("override ").strip().lstrip("/")
                if target in GROUPS and target not in chosen:
                    names[target] = name
    return names


def _attacks(suite: str, folders: Sequence[Path]) -> Tree:
    found: Tree = {}
    known = registered.registered("attack")
    for name, settings in _merged("attack", suite, folders).get("attacks", {}).items():
        kind = (settings or {}).get("attack", name)
        found[name] = (_of_class("attack", known[kind].name) if kind in known else {}) | OF_ATTACK
    return found


def _merged(group: str, name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """A file of a group over the files of the same group in its defaults."""
    content = _file(group, name, folders)
    found: dict[str, Any] = {}
    for line in content.get("defaults") or []:
        if isinstance(line, str) and line not in ("_self_", name):
            found |= _merged(group, line, folders)
    return found | content


def _schema(group: str, name: str, folders: Sequence[Path]) -> str:
    """The registered name that a file of `model` or `method` builds on: al0 for the defaults [_al0]; '' for none."""
    for line in _file(group, name, folders).get("defaults") or []:
        base = line.split("@")[0] if isinstance(line, str) else ""
        if base.startswith("_") and base != "_self_":
            return base[1:]
        if base not in ("", "_self_", name) and (found := _schema(group, base, folders)):
            return found
    return ""


def _of_class(room: str, name: str) -> Tree:
    """The fields of a settings class as a tree: a field whose type is another settings class is a branch."""
    found: Tree = {}
    for field, annotation in registered.fields(room, registered.classes(room)[name]).items():
        branch = room == "settings" and annotation in registered.classes(room)
        found[field] = _of_class(room, annotation) if branch else annotation
    return found


def _schedules() -> tuple[str, ...]:
    dataset = _read(conf_dir() / "dataset" / "digits.yaml")
    return tuple(dataset["schedule"])


def _defaults(content: Mapping[str, Any]) -> list[dict[str, str]]:
    return [line for line in content.get("defaults") or [] if isinstance(line, dict)]


def _file(group: str, name: str, folders: Sequence[Path]) -> dict[str, Any]:
    places = files(group, folders).get(name, [])
    return _read(places[0]) if places else {}


def _read(path: Path) -> dict[str, Any]:
    """The file's mapping; nothing where it cannot be read: composing says why."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
