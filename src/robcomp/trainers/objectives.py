"""What a stage minimises."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from robcomp.attacks import Attack
from robcomp.errors import UserError

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState


class Loss(NamedTuple):
    """The scalar to minimise, and how many images of the batch were right, clean and under attack (None: not run)."""

    value: Tensor
    clean: Tensor | None
    robust: Tensor | None


class Objective:
    """`loss(t, x, y)` on one batch; x float32 [N, C, H, W] in [0, 1], y int64 [N]."""

    revision: ClassVar[int] = 1

    def loss(self, t: "TrainState", x: Tensor, y: Tensor) -> Loss:
        raise TypeError(f"{type(self).__name__} defines no loss()")


@dataclass
class Natural(Objective):
    """Cross-entropy on clean images."""

    def loss(self, t: "TrainState", x: Tensor, y: Tensor) -> Loss:
        logits = t.forward(x)
        return Loss(F.cross_entropy(logits, y), _right(logits, y), None)


@dataclass
class Adversarial(Objective):
    """natural * CE(x) + (1 - natural) * CE(x_adv), x_adv from the inner attack on the current weights.

    natural = 0.5 for CIFAR-10 and MNIST, 0 for CIFAR-100 and SVHN in the ATMC code (ALGORITHMS A1.4); with 0 the clean
    images are not passed through at all.
    """

    attack: Attack
    natural: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.natural < 1:
            raise UserError(f"training.natural_weight={self.natural:g} is out of range; allowed is [0, 1).")

    def loss(self, t: "TrainState", x: Tensor, y: Tensor) -> Loss:
        x_adv = t.attacked(self.attack, x, y)
        adversarial = t.forward(x_adv)
        value, clean = F.cross_entropy(adversarial, y), None
        if self.natural > 0:
            logits = t.forward(x)
            value = self.natural * F.cross_entropy(logits, y) + (1 - self.natural) * value
            clean = _right(logits, y)
        return Loss(value, clean, _right(adversarial, y))


def _right(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.detach().argmax(1) == y).sum()
