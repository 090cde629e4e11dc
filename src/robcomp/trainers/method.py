"""A method: settings in, stages out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import nn

from robcomp.attacks import PGD
from robcomp.errors import UserError, unknown
from robcomp.registry import Registry
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.objectives import Objective
from robcomp.trainers.stage import Schedule, Stage

METHODS: Registry[type["Method"]] = Registry("method")


@dataclass(frozen=True)
class RecipeContext:
    """What a recipe may draw on: objectives, the attack of training and the schedules of the configuration, scaled.

    `chosen` is what objective= asks for in the place of the method's own, None where it asks for nothing; `adversarial`
    is that already where it was chosen, and a natural method trains on `chosen or natural`.
    """

    natural: Objective
    adversarial: Objective
    schedules: Mapping[str, Schedule | Mapping[str, Any]]  # a mapping: fields of its own that a stage of this name has
    threat_attack: PGD
    chosen: Objective | None = None
    epochs_scale: float = 1.0
    lr_scale: float = 1.0

    def schedule(self, name: str, stage: str) -> Schedule:
        """The configuration's `schedule.NAME`, with the fields that `schedule.STAGE` sets for this one stage."""
        if not isinstance(self.schedules.get(name), Schedule):
            raise unknown("schedule", name, [key for key, how in self.schedules.items() if isinstance(how, Schedule)])
        own = self.schedules.get(stage)
        schedule = replace(self.schedules[name], **own) if isinstance(own, Mapping) else self.schedules[name]
        schedule = schedule.scaled(self.epochs_scale)
        return replace(schedule, lr=schedule.lr * self.lr_scale)

    def stage(
        self,
        name: str,
        objective: Objective,
        compressor: Compressor | None = None,
        schedule: str | None = None,
        **settings: object,
    ) -> Stage:
        """A stage under the configuration's schedule of that name, or of the name `schedule`."""
        how = schedule or name
        own = self.schedules.get(name)
        said = name if isinstance(own, Mapping) and "lr" in own else how
        return Stage(
            name, objective, self.schedule(how, name), compressor or Compressor(), schedule_name=said, **settings
        )


@dataclass
class Method:
    """A recipe. Its fields are what `method.FIELD=...` sets; `stages` reads like the paper's algorithm box."""

    name: str = ""
    epochs_scale: float = 1.0  # shortens every stage and every epoch-valued field in proportion
    reference: list[str] = field(default_factory=list)  # quirks of the published codes, by name; none by default

    quirks: ClassVar[dict[str, str]] = {
        "no_random_start": "the inner attack starts at the image itself (ATMC code: its random start never happens)",
        "train_mode_attack": "the inner attack sees batch norm's batch statistics (ATMC and ICCV codes)",
        "test_selection": "each stage hands on the epoch whose robust accuracy was best on the TEST images (ATMC code; "
        "ICCV's in its last stage only and by its losses, DNR's by clean accuracy)",
    }  # name -> what it reproduces; methods add their own

    def __post_init__(self) -> None:
        for name in self.quirks:
            if name not in self.quirks:
                raise unknown("method.quirks", name, self.quirks)
        if not 0 < self.epochs_scale <= 100:
            raise UserError(f"method.epochs_scale={self.epochs_scale:g} is out of range; allowed is (0, 100].")

    def stages(self, context: RecipeContext) -> list[Stage]:
        raise TypeError(f"{type(self).__name__} defines no stages()")

    def check(self, model: nn.Module) -> None:
        """UserError where the settings do not fit the dense `model`; asked before anything is trained."""

    @property
    def weight_bits(self) -> int:
        """The width of a stored weight: 32, unless the method learns a codebook."""
        return 32
