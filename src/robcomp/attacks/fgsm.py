"""The fast gradient sign method."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robcomp.attacks.base import ATTACKS, Attack
from robcomp.attacks.pgd import PGD


@ATTACKS.register("fgsm")
@dataclass
class FGSM(Attack):
    """One full step along the gradient's sign, x + eps * sign(grad) (Goodfellow et al., 2015); L2: its direction."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        step = PGD(eps=self.eps, norm=self.norm, steps=1, step_size=self.eps, random_start=False)
        return step.ascend(model, x, y, x)
