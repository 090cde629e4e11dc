"""What report.json says of accuracies under attack, and whether they can be trusted: every key with its meaning."""

from dataclasses import dataclass
from typing import Any

from robcomp.report.records import meaning

MIN_VERDICT_IMAGES = 20  # of which a verdict says something

AUTOATTACK = {"apgd_ce": ("steps", 100), "apgd_t": ("steps", 100), "fab_t": ("steps", 100), "square": ("queries", 5000)}

Settings = dict[str, Any]  # of an attack: which keys there are is for the attack to say


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """Of how many images something is true."""

    value: float = meaning("fraction of the images that are classified correctly")
    correct: int = meaning("how many images that is")
    images: int = meaning("how many images were evaluated")
    interval: tuple[float, float] = meaning(
        "95 % interval of the value (Wilson), `[low, high]`: what another draw of test images could give, not another "
        "training seed"
    )


@dataclass(frozen=True, kw_only=True)
class AttackAccuracy(Proportion):
    """What an attack left. An image that is wrong without an attack counts as wrong under every attack."""

    attack: Settings = meaning("the attack: its name, norm, eps and further settings")
    seconds: float | None = meaning("time of the attack", default=None)
    attacked: int | None = meaning("how many images the attack was run on", default=None)
    cumulative: bool = meaning(
        "true where the attack met only what those before it left (of these, the ones of the same norm with no larger "
        "eps), and the value is the worst case over all of them",
        default=False,
    )
    excluded: bool = meaning(
        "true where the attack takes no part in `worst_case`: another norm, no ball, or excluded by its settings",
        default=False,
    )
    median_distance: float | None = meaning(
        "of a minimum-norm attack (FAB, CW) run on all images: the median distance to the nearest misclassified point "
        "found, in its norm, over the images that are correct without an attack; null where more than half have none",
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class WorstCase(Proportion):
    """The images that withstand every attack of one norm with at most this eps: their balls lie within its own."""

    norm: str = meaning("the norm")
    eps: float = meaning("the eps")
    attacks: list[str] = meaning("the attacks of this norm with at most this eps")


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The accuracies of one evaluation; `accuracy["pgd"]` is that under an attack, by its name in the suite."""

    clean: Proportion = meaning("on the unchanged test images")
    attacks: dict[str, AttackAccuracy] = meaning("under each attack of the suite, by its name")
    worst_case: Proportion = meaning(
        "an image counts only where it withstands every attack that is not excluded; where these have several eps, it "
        "is the worst case at the largest"
    )
    worst_cases: list[WorstCase] = meaning(
        "one for each norm and eps, where the attacks of a suite have several", default=list
    )
    only_class: int | None = meaning(
        "the number of the class, counted from 0, that the network answers for every unchanged test image, though they "
        "are of several; absent where its answers differ",
        default=None,
    )

    @property
    def tried(self) -> list[str]:
        """The names of the attacks of the worst case."""
        return [name for name, entry in self.attacks.items() if not entry.excluded]

    @property
    def unused(self) -> set[str]:
        """The names of the attacks that take part in no worst case, of whichever norm and eps."""
        used = {name for worst in self.worst_cases for name in worst.attacks}
        return {name for name, entry in self.attacks.items() if entry.excluded and name not in used}

    @property
    def autoattack(self) -> bool:
        """Whether AutoAttack's four attacks (standard version) are among them, unshortened, at the largest eps."""
        tried = [self.attacks[name].attack for name in self.tried]
        eps = max((attack["eps"] for attack in tried), default=0)
        at_eps = [attack for attack in tried if attack["eps"] == eps and attack.get("bn_mode", "eval") == "eval"]
        return all(
            any(found["name"] == name and found[key] >= least and found.get("targets", 9) >= 9 for found in at_eps)
            for name, (key, least) in AUTOATTACK.items()
        )

    def __getitem__(self, name: str) -> Proportion:
        return self.entries()[name]

    def __contains__(self, name: object) -> bool:
        return name in self.entries()

    def entries(self) -> dict[str, Proportion]:
        """All of them by name: clean, each attack, worst_case."""
        return {"clean": self.clean, **self.attacks, "worst_case": self.worst_case}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str = meaning("name of the check")
    flag: bool = meaning("whether it speaks against the figures")
    evidence: str = meaning("what was seen, in a sentence")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the figures under attack can be trusted."""

    trusted: bool | None = meaning(
        "no check raised a flag; null where none did and fewer than 20 images were looked at, or more than 5 of 100 "
        "were broken that the suite left"
    )
    images: int = meaning("how many images were looked at")
    checks: list[Check] = meaning("the checks")

    @property
    def flags(self) -> list[Check]:
        """The checks that speak against the figures."""
        return [check for check in self.checks if check.flag]
