"""The attack suite: the named attacks of one evaluation, from a configuration."""

import re
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from robcomp.attacks.base import ATTACKS, Attack, typed
from robcomp.errors import UserError, unknown
from robcomp.report.accuracy import MIN_VERDICT_IMAGES

RESERVED = ("clean", "worst_case", "file")  # keys of the report and of numpy's archive
MARKS = ("excluded", "survivors")  # what an entry of `attacks` says beside the attack's own settings


@dataclass
class SuiteConfig:
    """`attacks` maps a name of the user's choice to an attack's settings: {attack: pgd, eps: 8/255, steps: 20}.

    Without `attack`, the name itself is the attack. With `individual` the attacks are run in the order given, each on
    all images but for those marked `survivors: true`, which meet only what the ones before them left (of these, the
    ones of the same norm with no larger eps); without, all do, the cheapest first and those by queries last. An attack
    marked `excluded: true` takes no part in any worst case, nor does one without a ball; one in another norm than the
    first attack that does has a worst case of its own. `verdict` images are used to check whether the figures can be
    trusted; 0: no check. `published_steps`, for suites to refer to, is how many steps the PGD takes in what was
    published on the data set; each data set brings it.
    """

    name: str = "suite"
    individual: bool = True
    verdict: int = 100
    batch_size: int = 250
    attacks: dict[str, Any] = field(default_factory=dict)
    published_steps: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"attack.batch_size={self.batch_size} is out of range; at least 1 is allowed.")
        if self.verdict != 0 and self.verdict < MIN_VERDICT_IMAGES:
            raise UserError(
                f"attack.verdict={self.verdict} is out of range; a verdict is on at least {MIN_VERDICT_IMAGES} images, "
                "or 0 for none."
            )

    def build(self, eps: float | None = None) -> dict[str, Attack]:
        """The attacks by name, in order; a UserError for an unknown attack, an unknown setting or a bad value.

        `eps` replaces that of every attack, and with it the step sizes that follow from it.
        """
        return {name: _attack(name, entry, eps) for name, entry in self.attacks.items()}

    def check(self, classes: int) -> None:
        """UserError where an attack cannot be meant for a network of that many classes."""
        for name, attack in self.build().items():
            try:
                attack.check(classes)
            except UserError as error:
                raise UserError(f"attack.attacks.{name}: {error}") from None

    def identity(self) -> list[Any]:
        """All that decides the suite's figures, as JSON: not its name."""
        marked = self.on_survivors() if self.individual else set()
        attacks = [
            [name, attack.settings() | ({"survivors": True} if name in marked else {})]
            for name, attack in self.build().items()
        ]
        apart = sorted(self.with_ball().keys() - self.counted().keys())  # those with a worst case of their own
        how = [sorted(self.excluded()), self.individual, self.verdict, self.batch_size]
        return [attacks, *how, *([apart] if apart else [])]

    def with_ball(self) -> dict[str, Attack]:
        """The attacks that are bounded by a ball and not marked as excluded."""
        built = self.build()
        return {name: a for name, a in built.items() if a.bounded and not self.attacks[name].get("excluded")}

    def counted(self) -> dict[str, Attack]:
        """The attacks of the worst case: of those with a ball the ones in the first one's norm."""
        able = self.with_ball()
        norm = next((attack.norm for attack in able.values()), None)
        return {name: attack for name, attack in able.items() if attack.norm == norm}

    def excluded(self) -> set[str]:
        """The names of the attacks that take no part in the worst case."""
        return {*self.attacks} - self.counted().keys()

    def on_survivors(self) -> set[str]:
        """The names of the attacks that meet only what those before them left of a ball within their own."""
        return {name for name in self.with_ball() if not self.individual or self.attacks[name].get("survivors")}

    def order(self) -> dict[str, list[str]]:
        """The attacks in the order in which they are run, each with those whose survivors it meets; [] is all images.

        They are run as given, or the cheapest first and those by queries last. One on survivors meets what the attacks
        before it left whose ball lies in its own: what they found, it counts as found.
        """
        built, balls, chained = self.build(), self.with_ball(), self.on_survivors()
        order = list(built) if self.individual else sorted(built, key=lambda name: _place(built[name]))
        return {
            name: [
                other
                for other in order[:place]
                if name in chained and other in balls and lies_within(balls[other], built[name])
            ]
            for place, name in enumerate(order)
        }


def lies_within(attack: Attack, other: Attack) -> bool:
    """Whether the ball of `attack` lies in that of the `other`."""
    return attack.norm == other.norm and attack.threat.eps <= other.threat.eps


def _place(attack: Attack) -> tuple[bool, int]:
    return not attack.uses_gradients, attack.cost


def _attack(name: str, entry: Any, eps: float | None) -> Attack:
    where = f"attack.attacks.{name}"
    if name in RESERVED or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(
            f"{where}: '{name}' is not allowed as the name of an attack; use letters, digits, - and _, and none of "
            f"{RESERVED}."
        )
    if not isinstance(entry, dict):
        raise UserError(f"{where}={entry!r} is not a set of attack settings; write {{attack: pgd, eps: 8/255}}.")
    settings = dict(entry)
    marks = {mark: typed(f"{where}.{mark}", settings.pop(mark, False), bool) for mark in MARKS}
    if all(marks.values()):
        raise UserError(f"{where} is both excluded and for survivors; an excluded attack meets all images: set one.")
    kind = settings.pop("attack", name)
    typed(f"{where}.attack", kind, str)
    cls = ATTACKS[kind]
    if marks["survivors"] and not cls.bounded:
        raise UserError(f"{where}.survivors: {kind} has no ball, so no attack before it counts with it; leave it out.")
    allowed = {f.name: f for f in fields(cls)}
    for key, value in settings.items():
        if key not in allowed:
            raise unknown(f"setting of {where}", key, [*allowed, "attack", *MARKS])
        typed(f"{where}.{key}", value, allowed[key].type)
    if "eps" not in settings and allowed["eps"].default is MISSING:
        raise UserError(f"{where} has no eps; give one, for example {where}.eps=8/255.")
    if eps is not None:
        settings["eps"] = eps
    try:
        return cls(**settings)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
