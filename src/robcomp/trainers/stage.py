"""What to train: a stage and its schedule."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

from robcomp.errors import UserError
from robcomp.models.parameterisation import Dense, Parameterisation
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.objectives import Objective

SCHEDULES = ("dense", "sparse", "factored", "quantised")  # shared by the methods, set in the configuration
DECAYS = ("milestones", "linear", "cosine", "constant")
OPTIMIZERS = ("sgd", "adam")


@dataclass
class Schedule:
    """How long and how fast a stage learns. Every field in epochs shrinks with `scaled`."""

    kind: ClassVar[str] = "schedule"
    epochs: int = 10
    lr: float = 0.05
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay: str = "milestones"  # milestones: lr * gamma at each; linear and cosine: to 0 at the end; constant
    milestones: list[float] = field(default_factory=list)  # in epochs, counted from 0
    gamma: float = 0.1
    warmup: float = 0.0  # epochs of linear growth from 0
    restarts: int = 1  # how often the whole course (decay, milestones, warm-up) is run through within the epochs

    def __post_init__(self) -> None:
        for name, high in (
            ("epochs", math.inf),
            ("lr", math.inf),
            ("weight_decay", math.inf),
            ("momentum", 1),
            ("gamma", 1),
            ("warmup", self.epochs or math.inf),
        ):
            if not 0 <= getattr(self, name) <= high:
                allowed = f"0 to {high:g}" if high < math.inf else "at least 0"
                raise UserError(f"schedule: {name}={getattr(self, name)} is out of range; {allowed} is allowed.")
        if self.restarts < 1:
            raise UserError(f"schedule: restarts={self.restarts} is out of range; at least 1 is allowed.")
        if self.momentum == 1:
            raise UserError("schedule: momentum=1 is out of range; allowed is [0, 1).")
        for name, choices in (("decay", DECAYS), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"schedule: {name}={getattr(self, name)!r} is not allowed; choose from {', '.join(choices)}."
                )

    def scaled(self, factor: float) -> "Schedule":
        """The same schedule over `factor` times the epochs (at least 1), milestones and warm-up in proportion."""
        if factor == 1 or self.epochs == 0:
            return self
        epochs = max(1, round(self.epochs * factor))
        ratio = epochs / self.epochs
        return replace(self, epochs=epochs, milestones=[m * ratio for m in self.milestones], warmup=self.warmup * ratio)

    def in_effect(self) -> "Schedule":
        """The same course of learning, with the fields that take no part in it at their defaults."""
        if self.epochs == 0:
            return Schedule(epochs=0)
        course = self if self.decay == "milestones" else replace(self, milestones=[], gamma=Schedule.gamma)
        return course if self.optimizer == "sgd" else replace(course, momentum=Schedule.momentum)

    def rate(self, epoch: float) -> float:
        """The learning rate at `epoch` (fractional, from 0); after the last, that of its middle (`Stage.limit`)."""
        epoch = epoch if epoch < self.epochs else max(self.epochs - 0.5, 0)
        if self.restarts > 1:
            epoch = epoch * self.restarts % self.epochs
        if epoch < self.warmup:
            return self.lr * epoch / self.warmup
        if self.decay == "milestones":
            return self.lr * self.gamma ** sum(epoch >= m for m in self.milestones)
        left = 1 - (epoch - self.warmup) / max(self.epochs - self.warmup, 1e-9)
        if self.decay == "linear":
            return self.lr * left
        return self.lr * 0.5 * (1 - math.cos(math.pi * left)) if self.decay == "cosine" else self.lr


@dataclass
class Stage:
    """One of a method's stages: from the network that `start` names, train under a constraint, end inside it.

    start: 'previous' (the stage before), 'init' (the network as initialised) or the name of an earlier stage.
    support: the name of an earlier stage whose non-zeros are handed to the compressor (`TrainState.support`).
    limit: after its epochs the stage goes on while the adversarial loss of an epoch is below that of the epoch before,
    for at most this share of its epochs more.
    """

    kind: ClassVar[str] = "stage"

    name: str  # also seeds the stage's random numbers
    objective: Objective
    schedule: Schedule
    compressor: Compressor = field(default_factory=Compressor)
    parameterisation: Parameterisation = field(default_factory=Dense)
    start: str = "previous"
    support: str = ""
    limit: float = 0.0
    schedule_name: str = field(default="", compare=False)  # where the configuration has the schedule, for messages

    def __post_init__(self) -> None:
        self.schedule_name = self.schedule_name or self.name

    def outside(self) -> int:
        """How many of the milestones that the learning rate follows lie outside the stage's epochs."""
        how = self.schedule
        counts = how.decay == "milestones" and how.epochs > 0
        return sum(not 0 < milestone < how.epochs for milestone in how.milestones) if counts else 0


def part(index: int, total: int, parts: int) -> int:
    """In which of `parts` equal parts of a stage `index` (0 to total - 1) lies; at or past `total` in the last.

    Part j begins at floor(j * total / parts), so that the last is reached also where total < parts.
    """
    return parts - 1 if index >= total else ((index + 1) * parts - 1) // total
