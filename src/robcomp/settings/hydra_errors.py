"""What Hydra and OmegaConf say over many lines, as one sentence for the user."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError  # type: ignore[import-untyped]

from robcomp.errors import UserError, unknown
from robcomp.settings.choices import GROUPS, choices
from robcomp.settings.keys import tree

TYPES = {
    "Float": "a number",
    "Integer": "a whole number",
    "Boolean": "true or false",
    "String": "a string",
    "Union[int, float, str]": "a number or a fraction such as 8/255",
}

FOLDERS = "robcomp names run directories itself (OUT/DATASET-MODEL-METHOD/HASH); out=DIR says where they go."
# Hydra's own settings, and what stands in their place here
SETTINGS = {
    "hydra.run": FOLDERS,
    "hydra.sweep": FOLDERS,
    "hydra.output_subdir": FOLDERS,
    "hydra.runtime": FOLDERS,
    "hydra.launcher": "robcomp train -m runs a sweep one run after another; to run several at once, start a command "
    "for each part of the sweep with the same out=DIR: they share the stages that they have in common.",
    "hydra.sweeper": "robcomp train -m goes through all combinations of KEY=A,B and KEY=range(1,4); it has no search "
    "over intervals.",
    "hydra.mode": "for a sweep add -m (robcomp train -m ...).",
    "hydra.job": "robcomp stays in the folder where it is started, and names a run by its data set, model and method; "
    "out=DIR says where runs go.",
    "hydra.verbose": "robcomp does not log through Hydra; a run's figures are in its log.jsonl and report.json.",
    "hydra.job_logging": "robcomp does not log through Hydra; a run's figures are in its log.jsonl and report.json.",
    "hydra.hydra_logging": "robcomp does not log through Hydra; a run's figures are in its log.jsonl and report.json.",
    "hydra.callbacks": "robcomp calls no Hydra callbacks; a run's figures are in its log.jsonl and report.json.",
    "hydra.help": "robcomp train --help is written by robcomp.",
}


def hydra_setting(line: str, key: str) -> UserError:
    """The sentence for an override of Hydra's own node: what to do in its place."""
    setting = ".".join(re.split(r"[./]", key)[:2])
    way = SETTINGS.get(setting, "robcomp uses hydra.searchpath alone; robcomp train --help says what else there is.")
    if setting == "hydra.searchpath":
        way = "write it without a plus: hydra.searchpath=[DIR], or --config-dir DIR."
    return UserError(f"{line} would change nothing: {way}")


def cannot_be_removed(key: str) -> UserError:
    """The sentence for ~KEY where every run has KEY."""
    return UserError(f"~{key} would change nothing, as every run has {key}; set it: {key}=VALUE.")


def as_user_error(
    error: Exception, overrides: Sequence[str], keys: Callable[[str], list[str]], own: Sequence[Path] = ()
) -> UserError:
    """The innermost cause of a Hydra or OmegaConf error, in one sentence with what is allowed.

    `keys` tells which keys stand under a parent ('' for the root) with the groups chosen as in `overrides`; `own` are
    the user's own files among those chosen.
    """
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = str(error)
    if isinstance(error, MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        return UserError(f"{mark.name}, line {mark.line + 1}: {error.problem or error.context}; write it as YAML.")
    if isinstance(error, MissingConfigException):
        return UserError(f"{text.splitlines()[0].rstrip('.')}{_look_in(own)}.")
    if not isinstance(error, HydraException | OmegaConfBaseException):
        said = " ".join(text.split()) or type(error).__name__
        return UserError(f"the configuration cannot be read: {said}{_look_in(own)}.")
    full_key = re.search(r"full_key: (\S+)", text)
    key = full_key[1] if full_key else "the configuration"
    message = re.sub(r"\s+", " ", text.split("\n    full_key")[0]).strip().rstrip(".")
    if "does not support deletion" in message:
        return cannot_be_removed(key)
    names = {o.lstrip("+~").partition("=")[0] for o in overrides} - set(GROUPS)
    typed = any(f"{name}.".startswith(f"{key}.") or f"{key}.".startswith(f"{name}.") for name in names)
    hint = "" if typed else _look_in(own)
    missing = re.search(r"Key '(.+?)' (?:is not in struct|not in '\w+')", message)
    if missing:
        parent = key.rpartition(".")[0]
        if key == "experiment" and own:
            return UserError(f"{' or '.join(map(str, own))} needs '# @package _global_' as its first line.")
        if hint:
            return UserError(f"there is no key {key}{hint}.")
        if parent == "attack.attacks":
            return UserError(
                f"the attack suite has no attack '{missing[1]}'; set one of {', '.join(keys(parent))}, or add one by "
                f"'+attack.attacks.{missing[1]}={{attack: pgd, eps: 8/255}}'."
            )
        if known := keys(parent):
            error = unknown(f"key of {parent or 'the configuration'}", missing[1], known)
            return UserError(f"{error}{_elsewhere(parent, missing[1])}")
        return UserError(f"{parent} has no key '{missing[1]}' yet; add it by '+{parent}={{{missing[1]}: ...}}'.")
    group_file = re.search(r"Could not find '(\w+)/([^']+)'", message)
    if group_file and group_file[1] in GROUPS:
        return unknown(group_file[1], group_file[2], choices(group_file[1], own))
    if "is not a ListConfig" in message:
        given = next((o.partition("=")[2] for o in overrides if o.lstrip("+").startswith(f"{key}=")), "...")
        return UserError(f"{key}={given} has the wrong type; a list is allowed, as in {key}=[{given}]{hint}.")
    if not_bool := re.search(r"Value '(.*)' is not a valid bool", message):
        return UserError(f"{key}={not_bool[1]} has the wrong type; {TYPES['Boolean']} is allowed{hint}.")
    wrong = re.search(
        r"Value '(.*)' of type '\w+' (?:could not be converted to|is incompatible with type hint) '?(.+?)'?$", message
    )
    if wrong:
        return UserError(f"{key}={wrong[1]} has the wrong type; {TYPES.get(wrong[2], wrong[2])} is allowed{hint}.")
    if "is not Optional" in message:
        return UserError(f"{key}=null is no value for this key; give one, or leave it out for the default{hint}.")
    return UserError(f"{key}: {message}{hint}.")


def _elsewhere(group: str, key: str) -> str:
    """Which other choices of a group have the key, as a sentence; or nothing."""
    if group not in ("method", "model"):
        return ""
    having = [name for name in choices(group) if key in (tree({group: name}).get(group) or ())]
    return f" {group}={','.join(having)} has it." if having else ""


def _look_in(own: Sequence[Path]) -> str:
    return f"; look in {' and '.join(map(str, own))}" if own else ""
