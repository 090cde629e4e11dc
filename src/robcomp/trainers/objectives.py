"""What a stage minimises."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from robcomp.attacks.pgd import PGD
from robcomp.errors import UserError, unknown

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState


class Loss(NamedTuple):
    """The scalar to minimise, how many images of the batch were classified correctly, clean and under attack (None: not
    run), and the mean cross-entropy on the adversarial images (None: there were none)."""

    value: Tensor
    clean: Tensor | None
    robust: Tensor | None
    adversarial: Tensor | None = None


class Objective:
    """`loss(state, x, y)` on one batch; x float32 [N, C, H, W] in [0, 1], y int64 [N].

    One that changes while a stage trains defines `at` alone: the loss is that of the objective which it returns.
    """

    revision: ClassVar[int] = 1

    def at(self, state: "TrainState") -> "Objective":
        """The objective of this step, for those that change while a stage trains; asked before every step."""
        return self

    def loss(self, state: "TrainState", x: Tensor, y: Tensor) -> Loss:
        raise TypeError(f"{type(self).__name__} defines no loss()")

    def passes(self, epoch: int, epochs: int) -> float:
        """Passes through the network, forward and backward, that an image takes in `epoch` of `epochs` (from 0).

        For the time left; 2 where an objective does not say.
        """
        return 2


@dataclass
class Natural(Objective):
    """Cross-entropy on clean images."""

    kind: ClassVar[str] = "natural"

    def loss(self, state: "TrainState", x: Tensor, y: Tensor) -> Loss:
        logits = state.forward(x)
        return Loss(F.cross_entropy(logits, y), _correct(logits, y), None)


@dataclass
class Adversarial(Objective):
    """natural * CE(x) + (1 - natural) * CE(x_adv), x_adv from the inner attack on the current weights.

    natural = 0.5 for CIFAR-10 and MNIST, 0 for CIFAR-100 and SVHN in the ATMC code, 0.5 in DNR (its
    beta, eq. 6), 0.1 in the thesis; with 0 the clean images are not passed through at all.
    """

    kind: ClassVar[str] = "adversarial"

    attack: PGD
    natural: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.natural < 1:
            raise UserError(
                f"training.natural_weight={self.natural:g} is out of range; the clean loss weighs [0, 1) in an "
                "adversarial objective (objective=natural trains without an adversary)."
            )

    def loss(self, state: "TrainState", x: Tensor, y: Tensor) -> Loss:
        x_adv = state.attacked(self.attack, x, y)
        logits_adv = state.forward(x_adv)
        value = adversarial = F.cross_entropy(logits_adv, y)
        clean = None
        if self.natural > 0:
            logits = state.forward(x)
            value = self.natural * F.cross_entropy(logits, y) + (1 - self.natural) * adversarial
            clean = _correct(logits, y)
        return Loss(value, clean, _correct(logits_adv, y), adversarial.detach())

    def passes(self, epoch: int, epochs: int) -> float:
        return self.attack.cost + (4 if self.natural > 0 else 2)


@dataclass
class Trades(Objective):
    """CE(x) + beta * KL(p(x) || p(x_adv)), x_adv the maximiser of that divergence in the ball.

    Source: Zhang et al., 2019 (TRADES), eq. 5. At x itself the divergence has no slope, so the inner attack always
    starts at a random point of the ball.
    """

    kind: ClassVar[str] = "trades"

    attack: PGD
    beta: float = 6.0

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise UserError(
                f"objective.beta={self.beta:g} is out of range; TRADES weighs the divergence by more than 0."
            )
        self.attack = replace(self.attack, loss="kl", random_start=True)

    def loss(self, state: "TrainState", x: Tensor, y: Tensor) -> Loss:
        x_adv = state.attacked(self.attack, x, y)
        logits_adv, logits = state.forward(x_adv), state.forward(x)
        divergence = F.kl_div(logits_adv.log_softmax(1), logits.softmax(1), reduction="batchmean")
        value = F.cross_entropy(logits, y) + self.beta * divergence
        return Loss(value, _correct(logits, y), _correct(logits_adv, y), F.cross_entropy(logits_adv.detach(), y))

    def passes(self, epoch: int, epochs: int) -> float:
        return self.attack.cost + 4


@dataclass
class NaturalWarmup(Objective):
    """Natural training for the first `share` of the stage's steps, then the objective `then` (DNR, section 4.1.2)."""

    kind: ClassVar[str] = "natural_warmup"

    then: Objective
    share: float

    def at(self, state: "TrainState") -> Objective:
        return Natural() if state.step < self.share * state.total_steps else self.then.at(state)

    def passes(self, epoch: int, epochs: int) -> float:
        return 2 if epoch + 1 <= self.share * epochs else self.then.passes(epoch, epochs)


# The choices of objective=, made of the inner attack and of beta, which mixed and trades alone use
OBJECTIVES: dict[str, Callable[[PGD, float], Objective | None]] = {
    "method": lambda attack, beta: None,
    "natural": lambda attack, beta: Natural(),
    "adversarial": lambda attack, beta: Adversarial(attack, 0.0),
    "mixed": Adversarial,
    "trades": Trades,
}


def objective_named(name: str, attack: PGD, beta: float | None) -> Objective | None:
    """The objective that `objective=name` stands for, None for the method's own; UserError for a beta out of place."""
    if name not in OBJECTIVES:
        raise unknown("objective.name", name, OBJECTIVES)
    if (name in ("mixed", "trades")) != (beta is not None):
        said = "null" if beta is None else f"{beta:g}"
        cure = "give one: objective.beta=6" if beta is None else "add objective=trades, or leave it out"
        raise UserError(
            f"objective.beta={said} with objective={name}: mixed and trades take a beta, the others none; {cure}."
        )
    given = 0.0 if beta is None else beta
    if name == "mixed" and not 0 < given < 1:
        raise UserError(f"objective.beta={given:g} is out of range; the clean loss weighs (0, 1) in mixed.")
    return OBJECTIVES[name](attack, given)


def _correct(logits: Tensor, y: Tensor) -> Tensor:
    """How many images are classified correctly, as a zero-dimensional tensor."""
    return (logits.detach().argmax(1) == y).sum()
