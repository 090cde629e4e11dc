"""The distributionally robust attack in its penalty form."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robcomp.attacks.base import ATTACKS, Attack
from robcomp.attacks.losses import cross_entropy, gradient
from robcomp.errors import UserError
from robcomp.units import Fraction, fraction


@ATTACKS.register("wrm")
@dataclass
class WRM(Attack):
    """WRM: gradient ascent with a penalty on the distance in place of a bound (Sinha et al., 2018).

    It ascends gamma * CE(x') - |x' - x|_2^2 / 2 by steps of 1 / sqrt(t), clipped to [0, 1].
    A penalty in place of a ball: eps says nothing here, and how far an image is moved is for the network to decide. So
    its figure stands beside those of a ball and not among them. `gamma` and `steps` have no common default in the ATMC
    code (20 and 7 on CIFAR-10; 1.3 in the paper's figure), so both must be set.
    """

    eps: Fraction = 1.0
    gamma: float = 0.0
    steps: int = 0
    bounded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gamma = fraction(self.gamma, "gamma")
        if self.gamma == 0 or self.steps < 1:
            raise UserError(f"wrm has gamma={self.gamma:g} and steps={self.steps}; give both, as in gamma=1.3 steps=7.")

    @property
    def cost(self) -> int:
        return 2 * self.steps

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        x_adv = x
        for t in range(1, self.steps + 1):
            slope = gradient(model, x_adv, lambda logits: cross_entropy(logits, y))[1]
            x_adv = (x_adv + (self.gamma * slope - (x_adv - x)) / t**0.5).clamp(*self.threat.bounds)
        return x_adv
