"""The attack curriculum: an adversary that grows stronger while a stage trains."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from robcomp.errors import UserError
from robcomp.trainers.objectives import Adversarial, Natural, Objective, Trades
from robcomp.trainers.stage import part

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState


@dataclass
class AttackCurriculum(Objective):
    """`base` with an inner attack that grows: its eps by equal parts of the stage, its steps by epochs.

    eps_levels: fractions of the base attack's eps, one for each part; part j of n begins with epoch floor(j T / n) of
    T, so a stage shorter than the list skips levels but ends on the last. A level of 0 is natural training.
    steps_levels: PGD steps, raised with every epoch, back to the first whenever eps rises, and staying at the last of
    the list until then. The step size follows both (`relative_step * eps / steps`). A stage that goes on past its
    epochs keeps the last levels.
    Source: the training algorithm of Marshall's thesis (section 3.1: eps raised every T/3, the steps every iteration
    with a reset at each eps). Its T counts epochs: 200 in section 4 and on the axis of figure 4.3.
    """

    kind: ClassVar[str] = "attack_curriculum"

    base: Adversarial | Trades
    eps_levels: list[float]
    steps_levels: list[int]

    def __post_init__(self) -> None:
        _refuse("eps_levels", self.eps_levels, all(0 <= level <= 1 for level in self.eps_levels), "fractions of [0, 1]")
        _refuse(
            "steps_levels", self.steps_levels, all(level >= 1 for level in self.steps_levels), "steps of at least 1"
        )

    def at(self, state: "TrainState") -> Objective:
        return self._level(state.epoch, state.epochs)

    def passes(self, epoch: int, epochs: int) -> float:
        return self._level(epoch, epochs).passes(epoch, epochs)

    def _level(self, epoch: int, epochs: int) -> Objective:
        """What is minimised in `epoch` (from 0) of a stage of `epochs`."""
        stage = part(epoch, epochs, len(self.eps_levels))
        since = epoch - stage * epochs // len(self.eps_levels)
        attack = self.base.attack
        eps = attack.threat.eps * self.eps_levels[stage]
        if eps == 0:
            return Natural()
        steps = self.steps_levels[min(since, len(self.steps_levels) - 1) if epochs else -1]
        return replace(self.base, attack=replace(attack, eps=eps, steps=steps, step_size=None))


def _refuse(name: str, levels: Sequence[float], allowed: bool, what: str) -> None:
    if not levels or not allowed or list(levels) != sorted(levels):
        shown = ",".join(f"{level:g}" for level in levels)
        raise UserError(f"method.{name}=[{shown}] is not allowed; give {what}, at least one, in rising order.")
