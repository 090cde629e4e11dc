"""Can a robust accuracy be trusted? The images are attacked anew, and the known signs of a figure too high looked for.

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
from robcomp.evaluation.suite import SuiteConfig
from robcomp.report.accuracy import MIN_VERDICT_IMAGES, Check, Verdict
from robcomp.seeding import generator

NAME = "verdict"  # before the names of its attacks
REVISION = 2  # rises when a check, its attack or its threshold changes
STEPS, QUERIES = 100, 3000  # of the strong attacks: a run of APGD, a search of Square
PASSES, GROUP = 10, 25  # through the same images, so many at once, to see whether the answers differ
RANDOM = 1e-4  # their difference, of the largest output's size, from which a network counts as random
CONSTANT = 1e-3  # spread of the outputs' sums, of their mean, up to which they count as constant
SHARE = 0.05  # of the images looked at: what is more than this (and than 2 images) raises a flag
MIN_BROKEN, GAP = 5, 0.05  # images broken, and the lower end of the interval of their share, that raise one


def examine(e: Evaluator, suite: SuiteConfig, outcomes: Mapping[str, np.ndarray]) -> Verdict | None:
    """The report's "verdict" on the worst case of `suite`, whose largest eps is the budget here too.

    It looks at the first `suite.verdict` images that are classified correctly without an attack. outcomes: by the names
    of the suite's attacks, which images withstood them (bool [N]). "trusted" is None where no flag was raised on too
    few images to tell. None altogether where nothing was asked for: no images, or only attacks of eps 0.
    """
    own = planned(suite, e.split.images[0].numel())
    if not own:
        return None
    looked = np.zeros(len(e), bool)
    looked[np.flatnonzero(e.clean)[: suite.verdict]] = True
    count = int(looked.sum())
    if not count:
        return Verdict(trusted=True, images=0, checks=[])
    examination = _Examination(e, own, suite, outcomes, looked)
    checks = examination.checks()
    flagged = any(check.flag for check in checks)
    undecided = count < MIN_VERDICT_IMAGES or examination.broken > GAP * count
    return Verdict(trusted=None if undecided and not flagged else not flagged, images=count, checks=checks)


def planned(suite: SuiteConfig, pixels: int) -> dict[str, Attack]:
    """The attacks that `examine` runs for a suite, by the names it gives them.

    `pixels`: how many numbers an image has. None where there is nothing to examine.
    """
    budgets = [attack for attack in suite.counted().values() if attack.threat.eps > 0]
    if not budgets or not suite.verdict:
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
        suite: SuiteConfig,
        outcomes: Mapping[str, np.ndarray],
        looked: np.ndarray,
    ) -> None:
        self.e, self.own, self.looked = e, own, looked
        self.norm, self.whole = own[f"{NAME}.pgd"].norm, own[f"{NAME}.unlimited_ce"].threat.eps
        self.count, self.broken = int(looked.sum()), 0
        counted = suite.counted()
        self.surviving = np.logical_and.reduce([looked, *(outcomes[name] for name in counted)])
        self.followed = _left_by_gradients(suite, outcomes, looked)

    def checks(self) -> list[Check]:
        """All of them; what the later ones compare, the earlier ones have computed."""
        white = self.followed
        for name in ("apgd_ce", "apgd_t"):
            white = self.after(name, white)
        black = self.after("square", white & self.surviving)
        broken = self.surviving & ~(white & black)
        self.broken = int(broken.sum())
        fgsm, pgd = self.after("fgsm", self.looked), self.after("pgd", self.looked)
        return [
            self._stronger(broken),
            self._black_box(white, white & ~black),
            *self._beside_the_images(),
            self._probabilities(),
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
        square = self.own[f"{NAME}.square"]
        assert isinstance(square, Square)
        return Check(
            name="stronger_attacks",
            flag=_too_many(broken, self.surviving),
            evidence=f"APGD-CE and APGD-T with {STEPS} steps a run and Square with {square.queries:,} queries break "
            f"{self.broken} of the {int(self.surviving.sum())} images that survive the suite.",
        )

    def _black_box(self, left: np.ndarray, broken: np.ndarray) -> Check:
        return Check(
            name="black_box_beats_white_box",
            flag=_too_many(broken, left),
            evidence=f"Square, which sees no gradient, breaks {int(broken.sum())} of the {int(left.sum())} images that "
            "survive all attacks by gradients.",
        )

    def _places(self) -> Iterator[tuple[str, np.ndarray, Tensor, Tensor]]:
        """(where, index, x, y): up to GROUP of the images looked at, as they are, beside themselves, and where PGD led.

        Beside: a uniform point of the ball. What hides only off the clean images, or only on them, shows elsewhere.
        """
        attack = self.own[f"{NAME}.pgd"]
        assert isinstance(attack, PGD)
        for number, index in enumerate(np.array_split(np.flatnonzero(self.looked), -(-self.count // GROUP))):
            x, y = self.e.images(index)
            random = generator(self.e.device, self.e.seed, NAME, number)
            yield "on the images", index, x, y
            yield "beside them", index, attack.start(x, random), y
            yield "where PGD led", index, attack(self.e.view, x, y, random), y

    def _beside_the_images(self) -> list[Check]:
        """Do PASSES passes differ, and do gradients lead anywhere, on the images and off them?"""
        apart: dict[str, float] = {}
        lost: dict[str, int] = {}
        for place, index, x, y in self._places():
            apart[place] = max(apart.get(place, 0.0), self._difference(x))
            lost[place] = lost.get(place, 0) + int((self._useless(x, y) & self.surviving[index]).sum())
        most, worst = max(apart, key=apart.__getitem__), max(lost, key=lost.__getitem__)
        return [
            Check(
                name="random_output",
                flag=apart[most] > RANDOM,
                evidence=f"{PASSES} passes over the same images differ by at most {apart[most]:.1e} of the largest "
                f"output{f', {most}' if apart[most] else ''}.",
            ),
            Check(
                name="zero_gradients",
                flag=self.many(lost[worst]),
                evidence=f"For {lost[worst]} of the {int(self.surviving.sum())} images that survive the suite, the "
                f"margin's gradient {worst} is zero, not finite, or too small to change the class even over the whole "
                "pixel range.",
            ),
        ]

    def _difference(self, x: Tensor) -> float:
        """The largest difference between PASSES passes, of the largest output's size."""
        first = self.e.logits(x)
        passes = [self.e.logits(x) for _ in range(PASSES - 1)]
        return max(float((z - first).abs().max() / first.abs().max().clamp_min(1e-12)) for z in passes)

    def _useless(self, x: Tensor, y: Tensor) -> np.ndarray:
        """Which images (bool [n]) keep their class if the margin's gradient is followed over the whole pixel range."""
        gap, slope, _ = gradient(self.e.view, x, lambda logits: margin(logits, y))
        reach = norms(slope, "L2") * x[0].numel() ** 0.5 if self.norm == "L2" else slope.flatten(1).abs().sum(1)
        return (~(reach > -gap)).cpu().numpy()

    def _probabilities(self) -> Check:
        """Outputs of softmax, or a multiple of them: none is negative, and each image's have the same sum."""
        x, _ = self.e.images(np.flatnonzero(self.looked))
        outputs = self.e.logits(x)
        low, high, sums = float(outputs.min()), float(outputs.max()), outputs.sum(1)
        vary = bool((outputs - outputs[0]).abs().max() > CONSTANT * high)
        same = low >= 0 and float(sums.max() - sums.min()) <= CONSTANT * float(sums.mean())
        flag = same and (vary or abs(float(sums.mean()) - 1) <= CONSTANT)
        if flag:
            said = (
                "have the same sum for each image: they are probabilities, whose gradient vanishes where the network "
                "is sure."
            )
        elif same:
            said = "are the same for each image: whether they are logits cannot be told."
        else:
            said = "are negative or have different sums: they are logits."
        return Check(name="probabilities", flag=flag, evidence=f"Outputs between {low:.3g} and {high:.3g} {said}")

    def _unlimited(self) -> Check:
        """With the whole pixel range to move in, every image can become any other."""
        left = self.surviving
        for loss in ("margin", "ce"):
            left = self.after(f"unlimited_{loss}", left)
        return Check(
            name="correct_at_any_eps",
            flag=self.many(int(left.sum())),
            evidence=f"With eps {self.whole:.3g}, which allows any image at all, {int(left.sum())} of the "
            f"{int(self.surviving.sum())} images that survive the suite survive PGD.",
        )


def _left_by_gradients(suite: SuiteConfig, outcomes: Mapping[str, np.ndarray], looked: np.ndarray) -> np.ndarray:
    """Which images (bool [N]) no attack by gradients of the suite's worst case has broken."""
    counted, left = suite.counted(), looked
    for name, before in suite.order().items():
        if name in counted and counted[name].uses_gradients:
            met = np.logical_and.reduce([looked, *(outcomes[other] for other in before)])
            left = left & ~(met & ~outcomes[name])
    return left


def _too_many(broken: np.ndarray, of: np.ndarray) -> bool:
    """Whether so many were broken by the rule of MIN_BROKEN and GAP: a few of many say nothing of other images."""
    count = int(broken.sum())
    return count >= MIN_BROKEN and wilson(count, int(of.sum()))[0] > GAP
