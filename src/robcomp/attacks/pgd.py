"""Projected gradient descent."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robcomp.attacks.base import ATTACKS, Attack, norms, per_image
from robcomp.attacks.losses import Divergence, Loss, check_target, chosen_target, gradient, loss_named
from robcomp.errors import UserError
from robcomp.units import Fraction, fraction


@ATTACKS.register("pgd")
@dataclass
class PGD(Attack):
    """Projected gradient ascent of a loss over the eps ball (Madry et al., 2018).

    `steps` steps of length `step_size`, by the gradient's sign (Linf) or its direction (L2), each followed by the
    projection. Without `step_size` it is `relative_step * eps / steps`: 2.5 by default, 1.25 in the ATMC code
    (util*.py pgd_gt). With `momentum` the step follows a decaying sum of gradients, each divided by its mean absolute
    entry (MI-FGSM, Dong et al., 2018). `loss` is ce, margin, dlr, or kl: the divergence from the network's own answer
    to x, whatever the label (TRADES, Zhang et al., 2019; it needs a random start). With a `target` (least_likely,
    second, random or a shift such as '+5') the attack descends the loss towards that class instead. Of several
    `restarts` each image keeps a misclassified one, and among those the one with the highest loss.
    """

    steps: int = 10
    step_size: Fraction | None = None
    relative_step: float = 2.5
    random_start: bool = True
    restarts: int = 1
    momentum: float = 0.0
    loss: str = "ce"
    target: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("steps", "restarts")
        if not 0 <= self.momentum <= 1:
            raise UserError(f"momentum={self.momentum:g} is out of range; allowed is [0, 1].")
        check_target(self.target)
        if self.loss != "kl":
            loss_named(self.loss, "kl")
        elif self.target or not self.random_start:
            raise UserError("loss=kl knows no target and stands still at x itself; leave target out, random_start on.")
        given = self.relative_step * self.threat.eps / self.steps if self.step_size is None else self.step_size
        self.step_size = self._step = fraction(given, "step_size", open_low=self.threat.eps > 0)

    def check(self, classes: int) -> None:
        check_target(self.target, classes)

    @property
    def cost(self) -> int:
        return 2 * self.steps * self.restarts

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        objective = self._objective(model, x, y, generator)
        best = self.ascend(model, x, self.start(x, generator), objective)
        if self.restarts == 1:
            return best
        rank = _rank(model, best, y, objective)
        for _ in range(self.restarts - 1):
            candidate = self.ascend(model, x, self.start(x, generator), objective)
            other = _rank(model, candidate, y, objective)
            better = (other[0] > rank[0]) | ((other[0] == rank[0]) & (other[1] > rank[1]))
            best = torch.where(per_image(better, x), candidate, best)
            rank = torch.where(better, other, rank)
        return best

    def _objective(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        """What the attack maximises, as a function of the logits."""
        if self.loss == "kl":
            with torch.no_grad():
                return Divergence(model(x).float().log_softmax(1))
        if not self.target:
            return Objective(loss_named(self.loss), y)
        with torch.no_grad():
            return Objective(loss_named(self.loss), y, chosen_target(self.target, model(x), y, generator))

    def start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """x itself, or a uniform point of the ball around it, clipped to [0, 1]."""
        if not self.random_start or self.threat.eps == 0:
            return x.clone()
        if self.norm == "Linf":
            delta = (torch.rand(x.shape, generator=generator, device=x.device) * 2 - 1) * self.threat.eps
        else:
            direction = torch.randn(x.shape, generator=generator, device=x.device)
            radius = torch.rand(len(x), generator=generator, device=x.device) ** (1 / x.shape[1:].numel())
            delta = direction * per_image(self.threat.eps * radius / norms(direction, "L2"), x)
        return self.threat.project(x + delta, x)

    def ascend(self, model: nn.Module, x: Tensor, x_adv: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
        """`steps` ascent steps from `x_adv`; no random numbers and no host synchronisation, so it can be captured."""
        velocity = torch.zeros_like(x) if self.momentum else None
        for _ in range(self.steps):
            slope = gradient(model, x_adv, objective)[1]
            if velocity is not None:
                mean = slope.flatten(1).abs().mean(1).clamp_min(1e-12)
                slope = velocity = self.momentum * velocity + slope / per_image(mean, x)
            if self.norm == "Linf":
                x_adv = x_adv + self._step * slope.sign()
            else:
                x_adv = x_adv + slope * per_image(self._step / norms(slope, "L2").clamp_min(1e-12), x)
            x_adv = self.threat.project(x_adv, x)
        return x_adv


@dataclass(frozen=True)
class Objective:
    """A loss away from the label y, or minus the loss towards a target."""

    loss: Loss
    y: Tensor
    target: Tensor | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        if self.target is None:
            return self.loss(logits, self.y)
        return -self.loss(logits, self.target)


@torch.no_grad()
def _rank(model: nn.Module, x: Tensor, y: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
    """[2, N]: is the image misclassified, and its loss; a higher loss alone does not make it so."""
    logits = model(x).float()
    return torch.stack([(logits.argmax(1) != y).float(), objective(logits)])
