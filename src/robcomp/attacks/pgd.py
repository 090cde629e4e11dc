"""Projected gradient descent."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.attacks.base import ATTACKS, Attack
from robcomp.errors import UserError
from robcomp.units import Fraction, fraction


@ATTACKS.register("pgd")
@dataclass
class PGD(Attack):
    """Projected gradient ascent of the cross-entropy over the eps ball (Madry et al., 2018).

    `steps` steps of length `step_size`, by the gradient's sign (Linf) or its direction (L2), each followed by the
    projection. Without `step_size` it is `relative_step * eps / steps`: 2.5 by default, 1.25 in the ATMC code
    (util*.py pgd_gt). Of several `restarts` each image keeps the one with the highest loss.
    """

    steps: int = 10
    step_size: Fraction | None = None
    relative_step: float = 2.5
    random_start: bool = True
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} is out of range; an attack takes at least 1.")
        given = self.relative_step * self.eps / self.steps if self.step_size is None else self.step_size
        self.step_size = fraction(given, "step_size", open_low=self.eps > 0)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        best = self.ascend(model, x, y, self.start(x, generator))
        if self.restarts == 1:
            return best
        loss = _losses(model, best, y)
        for _ in range(self.restarts - 1):
            candidate = self.ascend(model, x, y, self.start(x, generator))
            candidate_loss = _losses(model, candidate, y)
            better = candidate_loss > loss
            best = torch.where(better.view(-1, *[1] * (x.dim() - 1)), candidate, best)
            loss = torch.where(better, candidate_loss, loss)
        return best

    def start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """x itself, or a uniform point of the ball around it, clipped to [0, 1]."""
        if not self.random_start or self.eps == 0:
            return x.clone()
        if self.norm == "Linf":
            delta = (torch.rand(x.shape, generator=generator, device=x.device) * 2 - 1) * self.eps
        else:
            direction = torch.randn(x.shape, generator=generator, device=x.device)
            radius = torch.rand(len(x), generator=generator, device=x.device) ** (1 / x.shape[1:].numel())
            delta = direction * (self.eps * radius / _l2(direction)).view(-1, *[1] * (x.dim() - 1))
        return self.threat.project(x + delta, x)

    def ascend(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor) -> Tensor:
        """`steps` ascent steps from `x_adv`; no random numbers and no host synchronisation, so it can be captured."""
        for _ in range(self.steps):
            gradient = input_gradient(model, x_adv, y)
            if self.norm == "Linf":
                x_adv = x_adv + self.step_size * gradient.sign()
            else:
                scale = self.step_size / _l2(gradient).clamp_min(1e-12)
                x_adv = x_adv + gradient * scale.view(-1, *[1] * (x.dim() - 1))
            x_adv = self.threat.project(x_adv, x)
        return x_adv


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the summed cross-entropy with respect to x alone: no weight gradient is computed."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(model(x).float(), y, reduction="sum")
        return torch.autograd.grad(loss, x)[0]


@torch.no_grad()
def _losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x).float(), y, reduction="none")


def _l2(v: Tensor) -> Tensor:
    """Each sample's L2 norm, [N]."""
    return v.flatten(1).norm(dim=1)
