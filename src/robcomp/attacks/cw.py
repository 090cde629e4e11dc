"""The attacks of Carlini and Wagner: the minimum-norm one, and their loss inside a ball."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from robcomp.attacks.active_set import Nearest
from robcomp.attacks.base import ATTACKS, MinimumNorm, per_image
from robcomp.attacks.losses import check_target, chosen_target, gradient, margin
from robcomp.attacks.pgd import PGD
from robcomp.errors import UserError
from robcomp.units import fraction

SHRINK = 1 - 1e-6  # of [-1, 1], so that pixels at 0 and 1 have a finite tanh variable
GROWTH = 10.0  # of c while no c has sufficed
BETA1, BETA2, TINY = 0.9, 0.999, 1e-8  # Adam


@ATTACKS.register("cw")
@dataclass
class CW(MinimumNorm):
    """The smallest L2 perturbation, by Adam on a penalty (Carlini and Wagner, 2017, VI-A).

    argmin over v of |x' - x|_2^2 + c f(x') with x' = (tanh(v) + 1) / 2.
    f is z_y less the highest other logit, or the highest other logit less that of the `target`, and never below
    -`confidence`. c is searched image by image, in `searches` runs of `steps` from x: it is halved towards the largest
    value that failed where f came down to -confidence, and otherwise raised, tenfold until one has sufficed. The
    nearest point on all paths that is misclassified by a margin of `confidence` is returned, with a target as well.
    The paper's rate of 0.01 needs thousands of steps: on robust networks 100 of them find nothing for most images.
    """

    norm: str = "L2"
    # inferred: steps, lr - the paper's rate of 0.01 needs thousands of steps
    steps: int = 100
    lr: float = 0.1
    searches: int = 9
    initial_c: float = 1e-3
    confidence: float = 0.0
    target: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm != "L2":
            raise UserError(
                f"norm={self.norm!r} is not for cw, which minimises L2; cw_margin is its loss in that ball."
            )
        self.at_least_one("steps", "searches")
        self.lr = fraction(self.lr, "lr", open_low=True)
        self.initial_c = fraction(self.initial_c, "initial_c", open_low=True)
        self.confidence = fraction(self.confidence, "confidence")
        check_target(self.target)

    @property
    def cost(self) -> int:
        return 1 + 2 * self.steps * self.searches

    @torch.no_grad()
    def nearest(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, enough: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        logits = model(x).float()
        best = Nearest(x, logits.argmax(1) != y, self.norm, enough)
        target = chosen_target(self.target, logits, y, generator) if self.target else None
        c = torch.full_like(best.distance, self.initial_c)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for _ in range(self.searches):
            reached = self._descend(model, best, y, target, c)
            low, high = torch.where(reached, low, c), torch.where(reached, c, high)
            c = torch.where(high.isfinite(), (low + high) / 2, c * GROWTH)
        return best.points, best.distance

    def _descend(self, model: nn.Module, best: Nearest, y: Tensor, target: Tensor | None, c: Tensor) -> Tensor:
        """One run of Adam for the images that are not done: in which of all [N] did f come down to -confidence?"""
        reached = torch.zeros_like(y, dtype=torch.bool)
        rows = best.active_rows()
        v = torch.atanh((2 * best.x[rows] - 1) * SHRINK)
        mean, square = torch.zeros_like(v), torch.zeros_like(v)
        for step in range(1, self.steps + 1):
            if not len(rows):
                break
            x, label, tanh = best.x[rows], y[rows], v.tanh()
            point = (tanh + 1) / 2
            goal = None if target is None else target[rows]
            f, slope, logits = gradient(model, point, partial(self._f, y=label, target=goal))
            reached[rows] |= f <= -self.confidence
            wrong = (logits.argmax(1) != label) & (margin(logits, label) >= self.confidence)
            best.update(rows, point, wrong)

            slope = (2 * (point - x) + per_image(c[rows], x) * slope) * (1 - tanh.square()) / 2
            mean, square = torch.lerp(slope, mean, BETA1), torch.lerp(slope.square(), square, BETA2)
            root = (square / (1 - BETA2**step)).sqrt()
            v = v - self.lr * mean / (1 - BETA1**step) / (root + TINY)
            if not bool((still := best.active(rows)).all()):
                rows, v, mean, square = rows[still], v[still], mean[still], square[still]
        return reached

    def _f(self, logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        value = -margin(logits, y) if target is None else margin(logits, target)
        return value.clamp_min(-self.confidence)


@ATTACKS.register("cw_margin")
@dataclass
class CWMargin(PGD):
    """PGD on the loss of Carlini and Wagner: the highest other logit minus that of y, inside the ball of eps.

    What most papers on adversarial training call "CW": Madry et al., 2018 (tables of MNIST and CIFAR-10), and as
    "CW_inf" TRADES (Zhang et al., 2019), MART (Wang et al., 2020) and AWP (Wu et al., 2020). Not a minimum-norm attack.
    """

    loss: str = "margin"
