"""How a configuration is composed from conf/ and the command line."""

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from robcomp.errors import UserError, unknown
from robcomp.models import MODELS
from robcomp.settings import grammar, hydra_app, search_path
from robcomp.settings.checks import check_overrides, check_stages, validate
from robcomp.settings.choices import EXPERIMENT, GROUPS, choices, files
from robcomp.settings.hydra_errors import as_user_error, cannot_be_removed, hydra_setting
from robcomp.settings.schema import Config, register_resolver
from robcomp.trainers.methods import METHODS
from robcomp.trainers.stage import SCHEDULES


def _enter(store: ConfigStore) -> None:
    store.store(name="robcomp", node=Config)
    for group, registry in (("model", MODELS), ("method", METHODS)):
        for name, cls in registry.items():
            store.store(group=group, name=f"_{name}", node=cls)


_STORED: dict[str, Any] = hydra_app.stored(_enter)


def compose_config(overrides: Sequence[str]) -> Config:
    """The configuration of conf/config.yaml under `overrides` (Hydra's grammar), typed and checked; or a UserError."""
    node = compose_all(overrides)
    recipe = node.hydra.runtime.choices.recipe
    config = to_config(_without_hydra(node))
    validate(config)
    check_stages(config, overrides, recipe)
    return config


def compose_node(overrides: Sequence[str]) -> DictConfig:
    """The composed OmegaConf node, interpolations not yet resolved (`--cfg job` prints it)."""
    return _without_hydra(compose_all(overrides))


def compose_all(overrides: Sequence[str]) -> DictConfig:
    """`compose_node` with Hydra's own node beside ours (`--cfg all` prints it)."""
    register_resolver()
    parsed = grammar.parse(overrides)
    entries = search_path.entries(o.value() for o in parsed if o.get_key_element() == search_path.KEY)
    folders = search_path.folders(entries)
    check_overrides(parsed, folders)
    searched = [grammar.quoted_list(search_path.KEY, entries)] if entries else []
    asked = [_asked(override) for override in parsed if override.get_key_element() != search_path.KEY]
    try:
        node = hydra_app.composed("config", [*searched, *asked], _STORED)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise _user_error(error, overrides, folders) from None
    _check_files(node, parsed, folders)
    _check_node(node, "")
    _check_attacks(node, parsed)
    return node


def _without_hydra(node: DictConfig) -> DictConfig:
    with open_dict(node):
        del node["hydra"]
    return node


def to_config(node: DictConfig) -> Config:
    """The node as dataclasses, every interpolation resolved and every field's own check done."""
    register_resolver()
    try:
        config: Any = OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise _user_error(error) from None
    except UserError as error:
        raise UserError(_placed(node, str(error))) from None
    return cast(Config, config)


def _placed(node: DictConfig, message: str) -> str:
    """A schedule's message with the name of the schedule that it is about."""
    for name, schedule in node.schedule.items() if message.startswith("schedule: ") else ():
        try:
            OmegaConf.to_object(schedule)
        except UserError:
            return message.replace("schedule: ", f"schedule.{name}.", 1)
    return message


def _asked(override: Override) -> str:
    """The override as Hydra takes it: what is open to new keys, an attack's settings and a stage's, needs no plus."""
    path, line = override.key_or_group.split("."), grammar.line(override)
    return f"++{line}" if override.type is OverrideType.CHANGE and (_of_attack(path) or _of_stage(path)) else line


def _of_attack(path: Sequence[str]) -> bool:
    return list(path[:2]) == ["attack", "attacks"] and len(path) > 3


def _of_stage(path: Sequence[str]) -> bool:
    return path[0] == "schedule" and len(path) > 1 and path[1] not in SCHEDULES


def _check_attacks(node: DictConfig, parsed: Sequence[Override]) -> None:
    """UserError for settings, entered without a plus, of an attack that the suite does not have."""
    paths = [(o, o.key_or_group.split(".")) for o in parsed if o.type is OverrideType.CHANGE]
    set_here: dict[str, set[str]] = {}
    for _, path in paths:
        if _of_attack(path):
            set_here.setdefault(path[2], set()).add(path[3])
    there = {name: keys for name, keys in set_here.items() if name in node.attack.attacks}  # not taken out since
    suspects = [name for name, keys in there.items() if {*map(str, node.attack.attacks[name])} <= keys]
    if not suspects:
        return
    typed = [o for o, path in paths if _of_attack(path)]
    suite = compose_node([grammar.line(override) for override in parsed if override not in typed]).attack
    for name in suspects:
        if name not in suite.attacks:
            raise UserError(
                f"attack={suite.name} has no attack '{name}'; set one of {', '.join(map(str, suite.attacks))}, or add "
                f"one by '+attack.attacks.{name}={{attack: pgd, eps: 8/255}}'."
            )


def _check_files(node: DictConfig, parsed: Sequence[Override], folders: Sequence[Path]) -> None:
    """UserError for a chosen file that Hydra would take in silence and that counts for nothing, or not as it is meant.

    That is: a name in two folders, of which the first is taken; a method or model of no class; settings of Hydra's.
    """
    chosen: Any = OmegaConf.to_container(node.hydra.runtime.choices) if folders else {}
    typed = [override.value() for override in parsed if override.key_or_group == EXPERIMENT]
    experiments = [(EXPERIMENT, name) for value in typed for name in (value if isinstance(value, list) else [value])]
    for group, name in [*((group, chosen.get(group)) for group in GROUPS), *experiments]:
        places = files(group, folders).get(name, [])
        if len(places) > 1:
            raise UserError(f"{group}={name} stands for {places[0]} and for {places[1]}; rename your own.")
        if places and group == EXPERIMENT and (theirs := _read(places[0]).get("hydra")):
            raise hydra_setting(f"{places[0]}: hydra.{next(iter(theirs))}", f"hydra.{next(iter(theirs))}")
        if places and group in ("model", "method") and not is_dataclass(OmegaConf.get_type(node, group)):
            raise UserError(
                f"{places[0]} builds on no {group} of robcomp's; begin it with one, as in "
                f"'defaults: [{choices(group)[0]}, _self_]'."
            )


def _read(path: Path) -> DictConfig:
    content = OmegaConf.load(path)
    return content if isinstance(content, DictConfig) else OmegaConf.create()


def _check_node(node: DictConfig, where: str) -> None:
    """UserError for a key that no dataclass has (`+key=...` would be dropped silently) and for NaN and infinity."""
    cls = OmegaConf.get_type(node)
    known = {f.name for f in fields(cls)} if is_dataclass(cls) else None
    if gone := sorted((known or set()) - {*map(str, node)}):
        raise cannot_be_removed(f"{where}.{gone[0]}" if where else gone[0])
    for key in map(str, node):
        path = f"{where}.{key}" if where else key
        if path == "hydra":  # Hydra's own node
            continue
        if known is not None and key not in known:
            raise unknown(f"key of {where or 'the configuration'}", key, known)
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        value = node[key]
        if isinstance(value, DictConfig):
            _check_node(value, path)
        for number in value if isinstance(value, ListConfig) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"{path}={number} is not a finite number; write one, as in 0.05.")


def _keys(parent: str, overrides: Sequence[str]) -> list[str]:
    """The keys that stand under `parent` ('' for the root) with the groups chosen as in `overrides`."""
    chosen = [o for o in overrides if o.partition("=")[0] in (*GROUPS, search_path.KEY)]
    if len(chosen) == len(overrides):  # the choices themselves do not compose
        return []
    node = compose_node(chosen)
    node = OmegaConf.select(node, parent) if parent else node
    return sorted(map(str, node)) if isinstance(node, DictConfig) else []


def _user_error(error: Exception, overrides: Sequence[str] = (), folders: Sequence[Path] = ()) -> UserError:
    typed = [override.split("=", 1) for override in overrides if "=" in override]
    own = [files(key.lstrip("+"), folders).get(value, [])[-1:] for key, value in typed] if folders else []
    return as_user_error(
        error, overrides, lambda parent: _keys(parent, overrides), [path for [path] in filter(None, own)]
    )
