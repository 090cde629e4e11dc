"""A method: settings in, stages out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import nn

from robcomp.attacks.pgd import PGD
from robcomp.errors import UserError, unknown
from robcomp.models.parameterisation import dense_weight_count
from robcomp.registry import Registry
from robcomp.trainers.compressor import Compressor, budget
from robcomp.trainers.objectives import Objective, Trades
from robcomp.trainers.stage import Schedule, Stage

METHODS: Registry[type["Method"]] = Registry("method")


@dataclass(frozen=True)
class RecipeContext:
    """What a method makes its stages of: the configuration's objectives, attack of training and schedules, scaled.

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

    def schedule(self, name: str, stage: str, milestones: Sequence[float] = ()) -> Schedule:
        """The configuration's `schedule.NAME`, with the fields that `schedule.STAGE` sets for this one stage.

        milestones: where a rate that falls by milestones does so in this stage, as fractions of its epochs, in the
        place of those that `schedule.NAME` has for a stage of its own; `schedule.STAGE` may set others all the same.
        """
        shared, typed = self.schedules.get(name), self.schedules.get(stage)
        if not isinstance(shared, Schedule):
            raise unknown("schedule", name, [key for key, how in self.schedules.items() if isinstance(how, Schedule)])
        own = dict(typed) if isinstance(typed, Mapping) else {}
        schedule = replace(shared, **own)
        if milestones and schedule.decay == "milestones" and "milestones" not in own:
            schedule = replace(schedule, milestones=[share * schedule.epochs for share in milestones])
        schedule = schedule.scaled(self.epochs_scale)
        return replace(schedule, lr=schedule.lr * self.lr_scale)

    def stage(
        self,
        name: str,
        objective: Objective,
        compressor: Compressor | None = None,
        schedule: str | None = None,
        milestones: Sequence[float] = (),
        **settings: Any,
    ) -> Stage:
        """A stage under the configuration's schedule of that name, or of the name `schedule`; see `schedule`."""
        how = schedule or name
        own = self.schedules.get(name)
        said = name if isinstance(own, Mapping) and "lr" in own else how
        course = self.schedule(how, name, milestones)
        return Stage(name, objective, course, compressor or Compressor(), schedule_name=said, **settings)


@dataclass
class Method:
    """Its fields are what `method.FIELD=...` sets; `stages` reads like the paper's algorithm box."""

    name: str = ""
    epochs_scale: float = 1.0  # shortens every stage and every epoch-valued field in proportion
    quirks: list[str] = field(default_factory=list)  # of the published codes, by name; none by default

    known_quirks: ClassVar[dict[str, str]] = {
        "no_random_start": "the inner attack starts at the image itself (ATMC code: its random start never happens)",
        "train_mode_attack": "the inner attack sees batch norm's batch statistics (ATMC and ICCV codes)",
        "test_selection": "each stage hands on the epoch whose robust accuracy was best on the TEST images (ATMC code; "
        "ICCV's in its last stage only and by its losses, DNR's by clean accuracy)",
        "stale_statistics": "a codebook leaves batch norm the running statistics of the weights before it (ATMC code)",
    }  # name -> what it reproduces; methods add their own

    def __post_init__(self) -> None:
        for name in self.quirks:
            if name not in self.known_quirks:
                raise unknown("method.quirks", name, self.known_quirks)
        if not 0 < self.epochs_scale <= 100:
            raise UserError(f"method.epochs_scale={self.epochs_scale:g} is out of range; allowed is (0, 100].")

    def stages(self, context: RecipeContext) -> list[Stage]:
        raise TypeError(f"{type(self).__name__} defines no stages()")

    def check(self, model: nn.Module) -> None:
        """UserError where the settings do not fit the dense `model`; asked before anything is trained."""

    def check_objective(self, chosen: Objective | None) -> None:
        """UserError where the objective that was chosen and the quirks that were asked for cannot be had together."""
        if isinstance(chosen, Trades) and "no_random_start" in self.quirks:
            raise UserError(
                "objective=trades needs a random start, at x itself its attack stands still; leave no_random_start out "
                "of method.quirks."
            )

    def inner_attack(self, attack: PGD) -> PGD:
        """The attack of training: `attack`, as configured, with the quirks that concern it."""
        if "train_mode_attack" in self.quirks:
            attack = replace(attack, bn_mode="train")
        if "no_random_start" in self.quirks:
            attack = replace(attack, random_start=False)
        return attack

    def selection(self, configured: str) -> str:
        """Whose weights a stage hands on: last or best, as configured, or best_on_test."""
        return "best_on_test" if "test_selection" in self.quirks else configured

    @property
    def weight_bits(self) -> int:
        """The width of a stored weight: 32, unless the method learns a codebook."""
        return 32


@dataclass
class SparseMethod(Method):
    """A method that keeps a fraction of the dense network's conv and linear weights."""

    ratio: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio <= 1:
            raise UserError(
                f"method.ratio={self.ratio:g} is out of range; the kept fraction of the weights lies in (0, 1]."
            )

    def check(self, model: nn.Module) -> None:
        if budget(model, self.ratio) < 1:
            raise UserError(
                f"method.ratio={self.ratio:g} keeps none of the network's {dense_weight_count(model):,} conv and "
                f"linear weights; give at least {1.1 / dense_weight_count(model):.2g}."
            )
