"""A suite: the named attacks of one evaluation, from a configuration."""

from dataclasses import dataclass, field, fields
from typing import Any

from robcomp.attacks.base import ATTACKS, Attack
from robcomp.errors import UserError, unknown

RESERVED = ("clean", "worst_case")  # keys of the report beside the attacks


@dataclass
class SuiteConfig:
    """`attacks` maps a name of the user's choice to an attack's settings: {attack: pgd, eps: 8/255, steps: 20}.

    Without `attack`, the name itself is the attack. `images` attacks the first so many test images only.
    """

    name: str = "suite"
    attacks: dict[str, Any] = field(default_factory=dict)
    images: int | None = None

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise UserError(f"attack.images={self.images} is out of range; give at least 1 image, or null for all.")

    def build(self) -> "Suite":
        """The attacks themselves; a UserError for an unknown attack, an unknown setting or a bad value."""
        return Suite({name: _attack(name, entry) for name, entry in self.attacks.items()})


class Suite(dict[str, Attack]):
    """Attacks by name, in the order of the configuration."""


def _attack(name: str, entry: Any) -> Attack:
    where = f"attack.attacks.{name}"
    if name in RESERVED:
        raise UserError(f"{where}: '{name}' is a key of the report; give the attack another name.")
    if not isinstance(entry, dict):
        raise UserError(f"{where}={entry!r} is not a set of attack settings; write {{attack: pgd, eps: 8/255}}.")
    settings = dict(entry)
    cls = ATTACKS[settings.pop("attack", name)]
    allowed = {f.name: f for f in fields(cls)}
    for key, value in settings.items():
        if key not in allowed:
            raise unknown(f"setting of {where}", key, allowed)
        _check_type(f"{where}.{key}", value, str(allowed[key].type), allowed[key].type)
    if "eps" not in settings:
        raise UserError(f"{where} has no eps; give one, for example {where}.eps=8/255.")
    try:
        return cls(**settings)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check_type(where: str, value: Any, label: str, expected: Any) -> None:
    label = getattr(expected, "__name__", str(expected))
    if expected is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise UserError(f"{where}={value!r} has the wrong type; an {label} is allowed.")
    if expected is bool and not isinstance(value, bool):
        raise UserError(f"{where}={value!r} has the wrong type; true or false is allowed.")
    if expected is str and not isinstance(value, str):
        raise UserError(f"{where}={value!r} has the wrong type; a string is allowed.")
    if expected is float and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise UserError(f"{where}={value!r} has the wrong type; a number is allowed.")
