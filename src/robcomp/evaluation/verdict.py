"""Can a robust accuracy be trusted? Attacks that are stronger than the suite, and the known signs of a figure too high.

Each check says what it saw in a sentence, whether it raises a flag or not. Sources: Athalye, Carlini and Wagner, 2018
(masked gradients); Carlini et al., 2019 (what to look for); Croce et al., 2022 (random and saturated outputs).
"""

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor

from robcomp.attacks.apgd import APGDCE, APGDT
from robcomp.attacks.base import Attack, norms
from robcomp.attacks.fgsm import FGSM
from robcomp.attacks.losses import gradient, margin
from robcomp.attacks.pgd import PGD
from robcomp.attacks.square import Square
from robcomp.evaluation.evaluator import Evaluator
from robcomp.evaluation.statistics import wilson
from robcomp.report.schema import Check, Verdict
from robcomp.seeding import generator

NAME = "verdict"  # before the names of its attacks
MIN_VERDICT_IMAGES = 20  # fewer say nothing: a count raises a flag above 2
REVISION = 2  # rises when a check, its attack or its threshold changes
STEPS, QUERIES = 100, 3000  # of the strong attacks: a run of APGD, a search of Square
PASSES, GROUP = 10, 25  # through the same images, so many at once, to see whether the answers differ
RANDOM = 1e-4  # their difference, of the largest output's size, from which a network counts as random
CONSTANT = 1e-3  # spread of the outputs' sums, of their mean, up to which they count as constant
SHARE = 0.05  # of the images looked at: what is more than this (and than 2 images) raises a flag
MIN_BROKEN, GAP = 5, 0.05  # images broken, and the lower 95 % bound of their share of the survivors, that raise one


def examine(
    e: Evaluator, attacks: Mapping[str, Attack], outcomes: Mapping[str, np.ndarray], images: int
) -> Verdict | None:
    """The report's "verdict": the checks on the first `images` images that are classified correctly without an attack.

    attacks: those of the suite's worst case, whose largest eps is the budget here too; outcomes: by their names, which
    images withstood them (bool [N]). "trusted" is None where no flag was raised on too few images to tell. None
    altogether where nothing was asked for: images = 0, or only attacks of eps 0.
    """
    own = planned(attacks, e.split.images[0].numel())
    if not images or not own:
        return None
    looked = np.zeros(len(e), bool)
    looked[np.flatnonzero(e.clean)[:images]] = True
    checks = _Examination(e, own, attacks, outcomes, looked).checks() if looked.any() else []
    flagged = any(check.flag for check in checks)
    return Verdict(
        trusted=None if 0 < looked.sum() < MIN_VERDICT_IMAGES and not flagged else not flagged,
        images=int(looked.sum()),
        checks=checks,
    )


def planned(attacks: Mapping[str, Attack], pixels: int) -> dict[str, Attack]:
    """The attacks that `examine` runs for a suite whose worst case is over `attacks`, by the names it gives them.

    `pixels`: how many numbers an image has. None where there is nothing to examine.
    """
    budgets = [attack for attack in attacks.values() if attack.threat.eps > 0]
    if not budgets:
        return {}
    budget = max(budgets, key=lambda attack: attack.threat.eps)
    eps, norm = budget.threat.eps, budget.norm
    whole = 1.0 if norm == "Linf" else float(pixels) ** 0.5
    queries = max([QUERIES, *(attack.queries for attack in budgets if isinstance(attack, Square))])
    chosen = {
        "fgsm": FGSM(eps, norm),
        "pgd": PGD(eps, norm, steps=20),
        "apgd_ce": APGDCE(eps, norm, steps=STEPS),
        "apgd_t": APGDT(eps, norm, steps=STEPS),
        "square": Square(eps, norm, queries=queries),
        "unlimited_margin": PGD(whole, norm, steps=40, loss="margin"),
        "unlimited_ce": PGD(whole, norm, steps=40, loss="ce"),
    }
    return {f"{NAME}.{name}": attack for name, attack in chosen.items()}


class _Examination:
    """The attacks of the checks, each on the images that matter to its question: bool [N], as in `looked`."""

    def __init__(
        self,
        e: Evaluator,
        own: Mapping[str, Attack],
        suite: Mapping[str, Attack],
        outcomes: Mapping[str, np.ndarray],
        looked: np.ndarray,
    ) -> None:
        self.e, self.own, self.looked = e, own, looked
        budget = own[f"{NAME}.pgd"]
        self.norm, self.whole = budget.norm, own[f"{NAME}.unlimited_ce"].threat.eps
        self.count = int(looked.sum())
        followed = [outcomes[name] for name, attack in suite.items() if attack.uses_gradients]
        queried = [outcomes[name] for name, attack in suite.items() if not attack.uses_gradients]
        self.followed = np.logical_and.reduce([looked, *followed])  # what the attacks with gradients left
        self.surviving = np.logical_and.reduce([self.followed, *queried])  # what the whole suite left
        self.places = list(self._places())

    def checks(self) -> list[Check]:
        """All of them; what the later ones compare, the earlier ones have computed."""
        white = self.followed
        for name in ("apgd_ce", "apgd_t"):
            white = self.after(name, white)
        black = self.after("square", white & self.surviving)
        fgsm, pgd = self.after("fgsm", self.looked), self.after("pgd", self.looked)
        return [
            self._stronger(self.surviving & ~(white & black)),
            self._black_box(white, white & ~black),
            self._random(),
            self._probabilities(),
            self._zero_gradients(),
            Check(
                name="one_step_beats_many",
                flag=self.many(int(pgd.sum()) - int(fgsm.sum())),
                evidence=f"{int(fgsm.sum())} of {self.count} images survive FGSM, and {int(pgd.sum())} PGD-20.",
            ),
            self._unlimited(),
        ]

    def after(self, name: str, candidates: np.ndarray) -> np.ndarray:
        name = f"{NAME}.{name}"
        return self.e.under(name, self.own[name], candidates).correct

    def many(self, count: int) -> bool:
        return count > max(2, SHARE * self.count)

    def _stronger(self, broken: np.ndarray) -> Check:
        queries = self._queries()
        return Check(
            name="stronger_attacks",
            flag=_too_many(broken, self.surviving),
            evidence=f"APGD-CE and APGD-T with {STEPS} steps a run and Square with {queries:,} queries break "
            f"{int(broken.sum())} of the {int(self.surviving.sum())} images that survive the suite.",
        )

    def _black_box(self, left: np.ndarray, broken: np.ndarray) -> Check:
        return Check(
            name="black_box_beats_white_box",
            flag=_too_many(broken, left),
            evidence=f"Square, which sees no gradient, breaks {int(broken.sum())} of the {int(left.sum())} images that "
            "survive all attacks by gradients.",
        )

    def _queries(self) -> int:
        square = self.own[f"{NAME}.square"]
        assert isinstance(square, Square)
        return square.queries

    def _places(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(where, x, y): up to GROUP of the images looked at, as they are, beside themselves, and where PGD led.

        Beside: a uniform point of the ball. What hides only off the clean images, or only on them, shows elsewhere.
        """
        attack = self.own[f"{NAME}.pgd"]
        assert isinstance(attack, PGD)
        for number, index in enumerate(np.array_split(np.flatnonzero(self.looked), -(-self.count // GROUP))):
            x, y = self.e.images(index)
            random = generator(self.e.device, self.e.seed, NAME, number)
            yield "on the images", x, y
            yield "beside them", attack.start(x, random), y
            yield "where PGD led", attack(self.e.view, x, y, random), y

    def _random(self) -> Check:
        """Two networks of which one is drawn at random give the same answer ten times in one of 512 cases."""
        apart, where = 0.0, "on the images"
        for place, x, _ in self.places:
            first = self.e.logits(x)
            for _ in range(PASSES - 1):
                difference = float((self.e.logits(x) - first).abs().max() / first.abs().max().clamp_min(1e-12))
                if difference > apart:
                    apart, where = difference, place
        return Check(
            name="random_output",
            flag=apart > RANDOM,
            evidence=f"{PASSES} passes over the same images differ by at most {apart:.1e} of the largest output"
            + (f", {where}." if apart else "."),
        )

    def _probabilities(self) -> Check:
        """Outputs of softmax, or a multiple of them: none is negative, and each image's have the same sum."""
        x, _ = self.e.images(np.flatnonzero(self.looked))
        outputs = self.e.logits(x)
        low, high, sums = float(outputs.min()), float(outputs.max()), outputs.sum(1)
        flag = 0 <= low < high and float(sums.max() - sums.min()) <= CONSTANT * float(sums.mean())
        scale = f"The outputs lie between {low:.3g} and {high:.3g}"
        return Check(
            name="probabilities",
            flag=flag,
            evidence=scale
            + (
                " and have the same sum for each image: they are probabilities, whose gradient vanishes where the "
                "network is sure."
                if flag
                else "; they are no probabilities."
            ),
        )

    def _zero_gradients(self) -> Check:
        """A gradient of zero, or one that leads nowhere: followed through the whole pixel range, it keeps the class."""
        lost: dict[str, int] = {}
        for place, x, y in self.places:
            gap, slope, _ = gradient(self.e.view, x, lambda logits, y=y: margin(logits, y))  # type: ignore[misc]
            reach = norms(slope, "L2") * x[0].numel() ** 0.5 if self.norm == "L2" else slope.flatten(1).abs().sum(1)
            lost[place] = lost.get(place, 0) + int((~(reach > -gap)).sum())
        where = max(lost, key=lambda place: lost[place])
        return Check(
            name="zero_gradients",
            flag=self.many(lost[where]),
            evidence=f"For {lost[where]} of {self.count} images the margin's gradient {where} is zero, not finite, or "
            "too small to change the class even over the whole pixel range.",
        )

    def _unlimited(self) -> Check:
        """With the whole pixel range to move in, every image can become any other."""
        left = self.looked
        for loss in ("margin", "ce"):
            left = self.after(f"unlimited_{loss}", left)
        return Check(
            name="correct_at_any_eps",
            flag=self.many(int(left.sum())),
            evidence=f"With eps {self.whole:.3g}, which allows any image at all, {int(left.sum())} of {self.count} "
            "images survive PGD.",
        )


def _too_many(broken: np.ndarray, of: np.ndarray) -> bool:
    """Whether that many of the images cannot be chance, by the rule of MIN_BROKEN and GAP."""
    count = int(broken.sum())
    return count >= MIN_BROKEN and wilson(count, int(of.sum()))[0] > GAP
