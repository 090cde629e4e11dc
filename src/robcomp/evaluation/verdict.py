"""Can a robust accuracy be trusted? Checks for the known ways in which such a figure comes out too high.

Each check says what it saw in a sentence, whether it raises a flag or not. Sources: Athalye, Carlini and Wagner, 2018
(masked gradients); Carlini et al., 2019 (what to look for); Croce et al., 2022 (random and saturated outputs).
"""

from functools import partial

import numpy as np
from torch import Tensor

from robcomp.attacks.base import Attack, norms
from robcomp.attacks.fgsm import FGSM
from robcomp.attacks.losses import Loss, cross_entropy, gradient, margin
from robcomp.attacks.pgd import PGD
from robcomp.attacks.square import Square
from robcomp.evaluation.evaluator import Evaluator
from robcomp.report.schema import Check, Verdict

NAME = "verdict"  # before the names of its attacks
MIN_VERDICT_IMAGES = 20  # fewer say nothing: a count raises a flag above 2
REVISION = 1  # rises when a check, its attack or its threshold changes
QUERIES = 300  # of Square, the check that sees no gradient
RANDOM = 1e-3  # difference between two passes, of the logits' size, from which a network counts as random
SHARE = 0.05  # of the images looked at: what is more than this (and than 2 images) raises a flag
HIDDEN = 0.2  # that share for cross-entropy against margin, which differ by up to 14 in 100 on networks without a fault


def examine(e: Evaluator, attacks: dict[str, Attack], surviving: np.ndarray, images: int) -> Verdict | None:
    """The report's "verdict": the checks on the first `images` images that are classified correctly without an attack.

    attacks: those of the suite's worst case, whose largest eps is the budget here too; surviving: bool [N], the images
    that withstood them. "trusted" is None where no flag was raised on too few images to tell. None altogether where
    nothing was asked for: images = 0, or only attacks of eps 0.
    """
    own = planned(attacks, e.split.images[0].numel())
    if not images or not own:
        return None
    looked = np.zeros(len(e), bool)
    looked[np.flatnonzero(e.clean)[:images]] = True
    checks = _Examination(e, own, looked, surviving).checks() if looked.any() else []
    flagged = any(check.flag for check in checks)
    return Verdict(
        trusted=None if 0 < looked.sum() < MIN_VERDICT_IMAGES and not flagged else not flagged,
        images=int(looked.sum()),
        checks=checks,
    )


def planned(attacks: dict[str, Attack], pixels: int) -> dict[str, Attack]:
    """The attacks that `examine` runs for a suite whose worst case is over `attacks`, by the names it gives them.

    `pixels`: how many numbers an image has. None where there is nothing to examine.
    """
    budgets = [attack for attack in attacks.values() if attack.threat.eps > 0]
    if not budgets:
        return {}
    budget = max(budgets, key=lambda attack: attack.threat.eps)
    eps, norm = budget.threat.eps, budget.norm
    whole = 1.0 if norm == "Linf" else float(pixels) ** 0.5
    chosen = {
        "fgsm": FGSM(eps, norm),
        "pgd": PGD(eps, norm, steps=20),
        "margin": PGD(eps, norm, steps=20, loss="margin"),
        "pgd_100": PGD(eps, norm, steps=100),
        "square": Square(eps, norm, queries=QUERIES),
        "unlimited_margin": PGD(whole, norm, steps=40, loss="margin"),
        "unlimited_ce": PGD(whole, norm, steps=40, loss="ce"),
    }
    return {f"{NAME}.{name}": attack for name, attack in chosen.items()}


class _Examination:
    """The attacks of the checks, each on the images that matter to its question."""

    def __init__(self, e: Evaluator, attacks: dict[str, Attack], looked: np.ndarray, surviving: np.ndarray) -> None:
        self.e, self.looked, self.surviving, self.attacks = e, looked, surviving, attacks
        self.norm, self.whole = attacks[f"{NAME}.pgd"].norm, attacks[f"{NAME}.unlimited_ce"].threat.eps
        self.count = int(looked.sum())
        self.index = np.flatnonzero(looked)

    def checks(self) -> list[Check]:
        """All of them; what the later ones compare, the earlier ones have computed."""
        fgsm, entropy, marginal = (self.after(name, self.looked) for name in ("fgsm", "pgd", "margin"))
        white = entropy & marginal
        long = self.after("pgd_100", white & self.surviving)
        square = self.after("square", white)
        return [
            *self._outputs(),
            self._zero_gradients(),
            self.compare(
                "saturated_loss",
                entropy & ~marginal,
                "PGD-20 on the margin breaks {} that survive PGD-20 on the cross-entropy",
                HIDDEN,
            ),
            self.fewer("one_step_beats_many", fgsm, entropy, "{} survive FGSM, and {} PGD-20"),
            self.compare(
                "black_box_beats_white_box",
                white & ~square,
                f"Square with {QUERIES} queries, which sees no gradient, breaks {{}} that survive PGD",
            ),
            self._unlimited(),
            self.compare(
                "too_few_iterations",
                self.looked & self.surviving & ~long,
                "PGD with 100 steps, or on the margin, breaks {} that survive the suite",
            ),
        ]

    def after(self, name: str, candidates: np.ndarray) -> np.ndarray:
        name = f"{NAME}.{name}"
        return self.e.under(name, self.attacks[name], candidates).correct

    def many(self, count: int, share: float = SHARE) -> bool:
        return count > max(2, share * self.count)

    def compare(self, name: str, broken: np.ndarray, sentence: str, share: float = SHARE) -> Check:
        count = int(broken.sum())
        return Check(
            name=name, flag=self.many(count, share), evidence=sentence.format(f"{count} of {self.count} images") + "."
        )

    def fewer(self, name: str, weak: np.ndarray, strong: np.ndarray, sentence: str) -> Check:
        after_weak, after_strong = int(weak.sum()), int(strong.sum())
        return Check(
            name=name,
            flag=self.many(after_strong - after_weak),
            evidence=sentence.format(f"{after_weak} of {self.count} images", after_strong) + ".",
        )

    def _outputs(self) -> list[Check]:
        x, _ = self.e.images(self.index)
        first, second = self.e.logits(x), self.e.logits(x)
        apart = float((first - second).abs().max() / first.abs().max().clamp_min(1e-12))
        sums = (first.sum(1) - 1).abs().max()
        probabilities = bool((first.min() >= 0) & (first.max() <= 1) & (sums < 1e-3))
        scale = f"between {float(first.min()):.3g} and {float(first.max()):.3g}"
        return [
            Check(
                name="random_output",
                flag=apart > RANDOM,
                evidence=f"Two passes over the same {self.count} images differ by {apart:.1e} of the largest output.",
            ),
            Check(
                name="probabilities",
                flag=probabilities,
                evidence=f"The outputs lie {scale}"
                + (
                    " and sum to 1 for each image: they are probabilities, whose cross-entropy hides the gradient."
                    if probabilities
                    else "; they are no probabilities."
                ),
            ),
        ]

    def _zero_gradients(self) -> Check:
        """A gradient of zero, or one that leads nowhere: followed through the whole pixel range, it keeps the class."""
        x, y = self.e.images(self.index)
        lost = 0
        for images, labels in zip(x.split(self.e.batch_size), y.split(self.e.batch_size), strict=True):
            slope = gradient(self.e.view, images, partial(_with_labels, cross_entropy, labels))[1]
            gap, way, _ = gradient(self.e.view, images, partial(_with_labels, margin, labels))
            reach = norms(way, "L2") * images[0].numel() ** 0.5 if self.norm == "L2" else way.flatten(1).abs().sum(1)
            useful = (slope.flatten(1) != 0).any(1) & (reach > -gap)
            lost += int((~useful).sum())
        return Check(
            name="zero_gradients",
            flag=self.many(lost),
            evidence=f"For {lost} of {self.count} images the gradient is zero, not finite, or too small to change the "
            "class even over the whole pixel range.",
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


def _with_labels(loss: Loss, labels: Tensor, logits: Tensor) -> Tensor:
    return loss(logits, labels)
