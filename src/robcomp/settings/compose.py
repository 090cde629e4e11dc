"""How a configuration is composed from conf/ and the command line, and the checks that concern more than one field."""

import math
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robcomp.errors import UserError, unknown
from robcomp.models import MODELS
from robcomp.models.base import ModelConfig
from robcomp.settings.choices import GROUPS, choices, conf_dir
from robcomp.settings.hydra_errors import as_user_error
from robcomp.settings.schema import Config
from robcomp.trainers.compressors.codebook import FULL_BITS
from robcomp.trainers.method import Method
from robcomp.trainers.methods import METHODS
from robcomp.trainers.stage import SCHEDULES


def _register() -> None:
    store = ConfigStore.instance()
    store.store(name="robcomp", node=Config)
    for group, registry in (("model", MODELS), ("method", METHODS)):
        for name, cls in registry.items():
            store.store(group=group, name=f"_{name}", node=cls)


_register()


def compose_config(overrides: Sequence[str]) -> Config:
    """The configuration of conf/config.yaml under `overrides` (Hydra's grammar), typed and checked; or a UserError."""
    config = to_config(compose_node(overrides))
    validate(config)
    _check_stages(config, overrides)
    return config


def compose_node(overrides: Sequence[str]) -> DictConfig:
    """The composed OmegaConf node, interpolations not yet resolved (`--cfg job` prints it)."""
    _check_choices(overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            node = compose("config", overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise _user_error(error, overrides) from None
    _check_node(node, "")
    return node


def to_config(node: DictConfig) -> Config:
    """The node as dataclasses, every interpolation resolved and every field's own check done."""
    try:
        return OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise _user_error(error) from None
    except UserError as error:
        raise UserError(_placed(node, str(error))) from None


def _placed(node: DictConfig, message: str) -> str:
    """A schedule's message with the name of the schedule that it is about."""
    for name, schedule in node.schedule.items() if message.startswith("schedule: ") else ():
        try:
            OmegaConf.to_object(schedule)
        except UserError:
            return message.replace("schedule: ", f"schedule.{name}.", 1)
    return message


def validate(config: Config) -> None:
    """The checks that concern more than one field; a UserError for the first that fails."""
    if not isinstance(config.model, ModelConfig) or not isinstance(config.method, Method):
        raise UserError("model and method must each be one of their group's choices; see robcomp list.")
    for group in ("model", "method"):
        name = getattr(config, group).name
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise UserError(f"{group}.name={name!r} names a folder; letters, digits, - and _ are allowed.")
    shape = tuple(config.dataset.shape)
    config.model.check(shape)
    if config.method.weight_bits < FULL_BITS and config.quantise.bits < FULL_BITS:
        raise UserError(
            f"quantise.bits={config.quantise.bits} and method.bits={config.method.weight_bits} both ask for a "
            "codebook; set method.bits=32 to compare post-training quantisation, or leave quantise.bits at 32."
        )
    if not 0 <= config.seed < 2**63:
        raise UserError(f"seed={config.seed} is out of range; 0 to 2^63 - 1 are allowed.")
    if config.training.selection == "best" and config.dataset.val == 0:
        raise UserError("training.selection=best needs held-out images; set dataset.val above 0, or selection=last.")
    if config.dataset.path:
        for name in ("out", "data_dir"):
            if Path(getattr(config, name)).resolve().is_relative_to(config.dataset.path):
                raise UserError(
                    f"{name}={getattr(config, name)} lies inside dataset.path={config.dataset.path}, where what is "
                    f"written would count as images; set {name}= to a folder elsewhere."
                )
    if Path(config.out).exists() and not Path(config.out).is_dir():
        raise UserError(f"out={config.out} is a file; give a folder, which is made if it is not there.")
    if not config.attack.attacks:
        raise UserError(
            "attack.attacks is empty; choose an attack suite (attack=quick) or add one: +attack.attacks.pgd.steps=20."
        )
    try:
        config.inner_attack()
    except UserError as error:
        raise UserError(f"training.attack: {error}") from None
    if not config.attack.counted():
        raise UserError(
            f"no attack of {', '.join(config.attack.attacks)} counts in the worst case (excluded, or without a ball); "
            "add one that does, as in '+attack.attacks.pgd={eps: 8/255}'."
        )
    config.check()


def _check_stages(config: Config, overrides: Sequence[str]) -> None:
    """UserError where the command line sets a schedule that no stage has; a recipe's may be for another method."""
    stages = [stage.name for stage in config.method.stages(config.recipe_context())]
    chosen = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        path = override.key_or_group.split(".")
        if path[0] == "schedule" and not override.is_delete():
            chosen += path[1:2] or list(override.value())
    if unused := [name for name in chosen if name not in (*SCHEDULES, *stages)]:
        raise UserError(
            f"schedule.{unused[0]} is for a stage that method={config.method.name} does not have; its stages are "
            f"{', '.join(stages)}."
        )


def _check_choices(overrides: Sequence[str]) -> None:
    """A sentence for what Hydra would say over many lines: bad grammar, and unknown choices of our groups."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise _user_error(error, overrides) from None
    for override in parsed:
        if override.key_or_group.split(".")[0].split("/")[0] == "hydra":
            raise UserError(f"{override.input_line}: robcomp writes its own run directories; use out=DIR.")
        if override.is_sweep_override():
            raise UserError(f"{override.input_line} is a sweep of several runs; add -m (robcomp train -m ...).")
        if override.key_or_group not in GROUPS or override.is_delete():
            continue
        value = override.value()
        if value not in choices(override.key_or_group):
            raise unknown(override.key_or_group, value, choices(override.key_or_group))


def _check_node(node: DictConfig, where: str) -> None:
    """UserError for a key that no dataclass has (`+key=...` would be dropped silently) and for NaN and infinity."""
    cls = OmegaConf.get_type(node)
    known = {f.name for f in fields(cls)} if is_dataclass(cls) else None
    for key in node:
        path = f"{where}.{key}" if where else str(key)
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
    chosen = [o for o in overrides if o.partition("=")[0] in GROUPS]
    if len(chosen) == len(overrides):  # the choices themselves do not compose
        return []
    node = compose_node(chosen)
    node = OmegaConf.select(node, parent) if parent else node
    return sorted(map(str, node)) if isinstance(node, DictConfig) else []


def _user_error(error: Exception, overrides: Sequence[str] = ()) -> UserError:
    return as_user_error(error, overrides, lambda parent: _keys(parent, overrides))
