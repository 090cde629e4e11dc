"""What Hydra and OmegaConf say over many lines, as one sentence for the user."""

import re
from collections.abc import Callable, Sequence

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from robcomp.errors import UserError, unknown
from robcomp.settings.choices import GROUPS
from robcomp.trainers.stage import SCHEDULES

TYPES = {
    "Float": "a number",
    "Integer": "a whole number",
    "Boolean": "true or false",
    "String": "a string",
    "Union[int, float, str]": "a number or a fraction such as 8/255",
}


def as_user_error(error: Exception, overrides: Sequence[str], keys: Callable[[str], list[str]]) -> UserError:
    """The innermost cause of a Hydra or OmegaConf error, in one sentence with what is allowed.

    `keys` tells which keys stand under a parent ('' for the root) with the groups chosen as in `overrides`.
    """
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = str(error)
    if isinstance(error, MissingConfigException):
        return UserError(text.splitlines()[0])
    if "override_grammar" in text or not isinstance(error, HydraException | OmegaConfBaseException):
        return UserError(
            f"cannot read '{' '.join(overrides)}'; write KEY=VALUE, as in method.ratio=0.01 or seed=0,1,2, with quotes "
            "inside quotes around what is not plain letters and digits: \"dataset.path='photos, größe M'\"."
        )
    full_key = re.search(r"full_key: (\S+)", text)
    key = full_key[1] if full_key else "the configuration"
    message = re.sub(r"\s+", " ", text.split("\n    full_key")[0]).strip().rstrip(".")
    missing = re.search(r"Key '(.+?)' (?:is not in struct|not in '\w+')", message)
    if missing:
        parent = key.rpartition(".")[0]
        recipe = next((o for o in overrides if o.startswith("recipe=") and o != "recipe=none"), None)
        typed = {o.lstrip("+~").partition("=")[0] for o in overrides} - set(GROUPS)
        if recipe and not any(f"{name}.".startswith(f"{key}.") or f"{key}.".startswith(f"{name}.") for name in typed):
            return UserError(
                f"{recipe} sets {key}, which is not in the {parent or 'configuration'} that was chosen; leave "
                f"{parent}= to the recipe, or take recipe=none."
            )
        if parent == "schedule":
            shared = unknown("schedule", missing[1], SCHEDULES)
            return UserError(f"{shared} For a stage of that name alone: ++schedule.{missing[1]}.epochs=20.")
        if known := keys(parent):
            return unknown(f"key of {parent or 'the configuration'}", missing[1], known)
        return UserError(f"{parent} has no key '{missing[1]}' yet; add it by '+{parent}={{{missing[1]}: ...}}'.")
    if "is not a ListConfig" in message:
        return UserError(f"{key} has the wrong type; a list is allowed, as in [0.5].")
    if not_bool := re.search(r"Value '(.*)' is not a valid bool", message):
        return UserError(f"{key}={not_bool[1]} has the wrong type; {TYPES['Boolean']} is allowed.")
    wrong = re.search(
        r"Value '(.*)' of type '\w+' (?:could not be converted to|is incompatible with type hint) '?(.+?)'?$", message
    )
    if wrong:
        return UserError(f"{key}={wrong[1]} has the wrong type; {TYPES.get(wrong[2], wrong[2])} is allowed.")
    return UserError(f"{key}: {message}.")
