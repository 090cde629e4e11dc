"""The fast gradient sign method."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robcomp.attacks.base import ATTACKS, Attack
from robcomp.attacks.losses import check_target, loss_named
from robcomp.attacks.pgd import PGD


@ATTACKS.register("fgsm")
@dataclass
class FGSM(Attack):
    """One full step along the gradient's sign, x + eps * sign(grad) (Goodfellow et al., 2015); L2: its direction.

    `loss` and `target` as in PGD, of which this is the single step from x.
    """

    loss: str = "ce"
    target: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        loss_named(self.loss)
        check_target(self.target)

    @property
    def cost(self) -> int:
        return 2

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        step = PGD(
            self.eps, self.norm, steps=1, step_size=self.eps, random_start=False, loss=self.loss, target=self.target
        )
        return step.perturb(model, x, y, generator)
