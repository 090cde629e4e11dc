"""What is checked of a configuration: of each override before it is composed, of several fields together afterwards."""

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import IntervalSweep, Override

from robcomp.errors import UserError, unknown
from robcomp.models.base import ModelConfig
from robcomp.settings import grammar, search_path
from robcomp.settings.choices import EXPERIMENT, GROUPS, choices
from robcomp.settings.hydra_errors import cannot_be_removed, hydra_setting
from robcomp.settings.schema import Config
from robcomp.trainers.compressors.codebook import FULL_BITS
from robcomp.trainers.method import Method
from robcomp.trainers.stage import SCHEDULES


def check_overrides(parsed: Sequence[Override], folders: Sequence[Path]) -> None:
    """A sentence for what Hydra would say over many lines: settings of its own, sweeps, unknown choices of a group."""
    for override in parsed:
        line, group, value = grammar.line(override), override.key_or_group, override.value()
        if override.get_key_element() == search_path.KEY:
            continue
        if group.split(".")[0].split("/")[0] == "hydra":
            raise hydra_setting(line, group)
        if override.is_delete() and (group in GROUPS or group.removeprefix("schedule.") in SCHEDULES):
            raise cannot_be_removed(group)
        if group in GROUPS and override.get_key_element() != group:
            raise UserError(f"{line}: every run has one {group} already, in one place; write {group}={value}.")
        if isinstance(value, IntervalSweep):
            raise UserError(f"{line} has no list of values; write KEY=A,B or KEY=range(1,4), and -m for a sweep.")
        if override.is_sweep_override():
            raise UserError(
                f"{line} is a sweep of several runs; add -m (robcomp train -m ...). A list takes brackets: KEY=[1,2]."
            )
        if group == EXPERIMENT and not override.is_delete():
            _check_experiment(override, folders)
        if group in GROUPS and value not in choices(group, folders):
            raise unknown(group, value, choices(group, folders))


def _check_experiment(override: Override, folders: Sequence[Path]) -> None:
    line, value, known = grammar.line(override), override.value(), choices(EXPERIMENT, folders)
    if not folders:
        raise UserError(
            f"{line} asks for a file of your own: write DIR/experiment/NAME.yaml, and --config-dir DIR "
            "+experiment=NAME."
        )
    if not override.is_add():
        raise UserError(f"{line} is not among the defaults; add it by a plus: +{line.lstrip('+')}.")
    for name in value if isinstance(value, list) else [value]:
        if not known:
            raise UserError(f"{line}: there is no experiment/*.yaml in {' or '.join(map(str, folders))}; write one.")
        if name not in known:
            raise unknown(EXPERIMENT, name, known)


def validate(config: Config) -> None:
    """The checks that concern more than one field; a UserError for the first that fails."""
    if not isinstance(config.model, ModelConfig) or not isinstance(config.method, Method):
        raise UserError("model= and method= must each name one of the choices that robcomp list shows.")
    for group in ("model", "method"):
        name = getattr(config, group).name
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise UserError(
                f"{group}.name={name!r} becomes part of a folder's name; only letters, digits, - and _ are allowed."
            )
    channels, height, width = config.dataset.shape
    config.model.check((channels, height, width))
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


def check_stages(config: Config, overrides: Sequence[str], recipe: str) -> None:
    """UserError where the command line, or a file of the user's own, sets a schedule that no stage has.

    A recipe's may be for another method.
    """
    stages = [stage.name for stage in config.method.stages(config.recipe_context())]
    chosen = list(config.schedule) if recipe == "none" else []
    for override in grammar.parse(overrides):
        path = override.key_or_group.split(".")
        value = override.value()
        if path[0] == "schedule" and not override.is_delete():
            chosen += path[1:2] or list(value if isinstance(value, dict) else ())
    if unused := [name for name in chosen if name not in (*SCHEDULES, *stages)]:
        raise UserError(
            f"schedule.{unused[0]} is for a stage that method={config.method.name} does not have; its stages are "
            f"{', '.join(stages)}."
        )
