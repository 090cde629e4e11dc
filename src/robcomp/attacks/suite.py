"""A suite: the named attacks of one evaluation, from a configuration."""

import re
from dataclasses import dataclass, field, fields
from typing import Any

from robcomp.attacks.base import ATTACKS, Attack
from robcomp.errors import UserError, unknown

RESERVED = ("clean", "worst_case", "file")  # keys of the report and of numpy's archive


@dataclass
class SuiteConfig:
    """`attacks` maps a name of the user's choice to an attack's settings: {attack: pgd, eps: 8/255, steps: 20}.

    Without `attack`, the name itself is the attack.
    """

    name: str = "suite"
    attacks: dict[str, Any] = field(default_factory=dict)

    def build(self) -> dict[str, Attack]:
        """The attacks by name, in order; a UserError for an unknown attack, an unknown setting or a bad value."""
        return {name: _attack(name, entry) for name, entry in self.attacks.items()}


def _attack(name: str, entry: Any) -> Attack:
    where = f"attack.attacks.{name}"
    if name in RESERVED or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(
            f"{where}: '{name}' cannot name an attack; use letters, digits, - and _, and none of {RESERVED}."
        )
    if not isinstance(entry, dict):
        raise UserError(f"{where}={entry!r} is not a set of attack settings; write {{attack: pgd, eps: 8/255}}.")
    settings = dict(entry)
    kind = settings.pop("attack", name)
    _check_type(f"{where}.attack", kind, str)
    cls = ATTACKS[kind]
    allowed = {f.name: f for f in fields(cls)}
    for key, value in settings.items():
        if key not in allowed:
            raise unknown(f"setting of {where}", key, allowed)
        _check_type(f"{where}.{key}", value, allowed[key].type)
    if "eps" not in settings:
        raise UserError(f"{where} has no eps; give one, for example {where}.eps=8/255.")
    try:
        return cls(**settings)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check_type(where: str, value: Any, expected: Any) -> None:
    if expected is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise UserError(f"{where}={value!r} has the wrong type; a whole number is allowed.")
    if expected is bool and not isinstance(value, bool):
        raise UserError(f"{where}={value!r} has the wrong type; true or false is allowed.")
    if expected is str and not isinstance(value, str):
        raise UserError(f"{where}={value!r} has the wrong type; a string is allowed.")
    if expected is float and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise UserError(f"{where}={value!r} has the wrong type; a number is allowed.")
