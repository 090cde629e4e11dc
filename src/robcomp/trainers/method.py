"""A method: settings in, stages out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from robcomp.errors import UserError, unknown
from robcomp.registry import Registry
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.objectives import Objective
from robcomp.trainers.stage import Schedule, Stage

METHODS: Registry[type["Method"]] = Registry("method")


@dataclass(frozen=True)
class Task:
    """What a recipe may draw on: the two objectives and the schedules of the configuration, scaled."""

    natural: Objective
    adversarial: Objective
    schedules: Mapping[str, Schedule]
    epochs_scale: float = 1.0
    lr_scale: float = 1.0

    def schedule(self, name: str) -> Schedule:
        """The schedule that the configuration gives under `schedule.NAME`."""
        if name not in self.schedules:
            raise unknown("schedule", name, self.schedules)
        schedule = self.schedules[name].scaled(self.epochs_scale)
        return replace(schedule, lr=schedule.lr * self.lr_scale)

    def stage(
        self, name: str, objective: Objective, compressor: Compressor | None = None, schedule: str | None = None,
        **settings: object,
    ) -> Stage:  # fmt: skip
        """A stage under the configuration's schedule of that name, or of the name `schedule`."""
        how = schedule or name
        return Stage(name, objective, self.schedule(how), compressor or Compressor(), schedule_name=how, **settings)


@dataclass
class Method:
    """A recipe. Its fields are what `method.FIELD=...` sets; `stages` reads like the paper's algorithm box."""

    name: str = ""
    epochs_scale: float = 1.0  # shortens every stage and every epoch-valued field in proportion

    def __post_init__(self) -> None:
        if not 0 < self.epochs_scale <= 100:
            raise UserError(f"method.epochs_scale={self.epochs_scale:g} is out of range; allowed is (0, 100].")

    def stages(self, task: Task) -> list[Stage]:
        raise TypeError(f"{type(self).__name__} defines no stages()")

    def check(self, model: nn.Module) -> None:
        """UserError where the settings do not fit the dense `model`; asked before anything is trained."""

    @property
    def weight_bits(self) -> int:
        """The width of a stored weight: 32, unless the method learns a codebook."""
        return 32
