"""The schema of the configuration: what a run's settings are, their defaults and each field's own check.

Nothing here knows a particular data set, model or method: their dataclasses come from the registries.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robcomp.attacks.base import ThreatModel
from robcomp.attacks.pgd import PGD
from robcomp.data.config import DatasetConfig, held_out
from robcomp.errors import UserError, unknown
from robcomp.evaluation.suite import SuiteConfig
from robcomp.trainers.compressors.codebook import FULL_BITS, PostTraining, check_bits
from robcomp.trainers.method import RecipeContext
from robcomp.trainers.objectives import Adversarial, Natural, objective_named
from robcomp.trainers.stage import SCHEDULES, Schedule, Stage
from robcomp.units import Fraction, fraction


def register_resolver() -> None:
    """Teach OmegaConf what a data set's own dataset.val comes to, `val: ${robcomp.held_out:1000}`.

    It may know already, or have forgotten: resolvers belong to the whole process.
    """
    if not OmegaConf.has_resolver("robcomp.held_out"):
        OmegaConf.register_new_resolver(
            "robcomp.held_out", lambda whole, *, _parent_: held_out(whole, _parent_.get("subset"))
        )


PRECISIONS = ("auto", "float32", "bf16")
SELECTIONS = ("last", "best")


@dataclass
class ThreatConfig:
    """The adversary of training, and by default of evaluation. eps is a fraction of [0, 1]: 8/255 or 0.031."""

    kind: ClassVar[str] = "threat"

    norm: str = "Linf"
    eps: Fraction = "8/255"

    def __post_init__(self) -> None:
        self.eps = fraction(self.eps, "threat.eps", low=-math.inf)
        if not self.eps > 0:
            allowed = "(0, 1], a fraction of the pixel range" if self.norm == "Linf" else "more than 0"
            raise UserError(f"threat.eps={self.eps:g} is out of range; allowed is {allowed} such as 8/255.")
        try:
            ThreatModel(self.norm, self.eps)
        except UserError as error:
            raise UserError(f"threat.{error}") from None


@dataclass
class InnerAttackConfig:
    """The PGD of training: `steps` steps of relative_step * eps / steps."""

    kind: ClassVar[str] = "inner_attack"

    steps: int = 7
    relative_step: float = 2.5
    random_start: bool = True
    bn_mode: str = "eval"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"training.attack.steps={self.steps} is out of range; at least 1 is allowed.")
        if not self.relative_step > 0:
            raise UserError(
                f"training.attack.relative_step={self.relative_step:g} is out of range; (0, inf) is allowed: the steps "
                "together reach relative_step * eps, 2.5 usually."
            )
        if self.bn_mode not in ("eval", "train"):
            raise unknown("training.attack.bn_mode", self.bn_mode, ("eval", "train"))


@dataclass
class TrainingConfig:
    """What all stages share."""

    kind: ClassVar[str] = "training"

    batch_size: int = 128
    natural_weight: float = 0.5  # weight of the clean loss in the adversarial objective
    lr_scale: float = 1.0  # multiplies every learning rate: 0.2 for lenet, which lacks batch norm
    attack: InnerAttackConfig = field(default_factory=InnerAttackConfig)
    selection: str = "last"  # or best: the epoch with the best accuracy on the held-out slice
    # tau: each stage hands on the running mean tau * mean + (1 - tau) * weights; 0: the weights themselves
    weight_average: float = 0.0
    precision: str = "auto"  # bf16 where the hardware computes in it, float32 elsewhere; evaluation is float32 always
    channels_last: bool = True
    graphs: bool = True  # replay the gradients of a step, attack included, as a CUDA graph

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"training.batch_size={self.batch_size} is out of range; at least 1 is allowed.")
        if not 0 <= self.natural_weight < 1:
            raise UserError(
                f"training.natural_weight={self.natural_weight:g} is out of range; the clean loss weighs [0, 1) in an "
                "adversarial objective (objective=natural trains without an adversary)."
            )
        if not 0 <= self.weight_average < 1:
            raise UserError(
                f"training.weight_average={self.weight_average:g} is out of range; [0, 1) is allowed: 0 for none, "
                "0.99 to 0.999 usually."
            )
        if not self.lr_scale > 0:
            raise UserError(f"training.lr_scale={self.lr_scale:g} is out of range; more than 0 is allowed.")
        for name, allowed in (("selection", SELECTIONS), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise unknown(f"training.{name}", getattr(self, name), allowed)


@dataclass
class ObjectiveConfig:
    """What a method minimises in the place of its own objective; `method`: its own."""

    name: str = "method"
    beta: float | None = None  # mixed: weight of the clean loss; trades: weight of the divergence


@dataclass
class QuantiseConfig:
    """A codebook fitted after training, for methods that do not learn one. 32: none."""

    bits: int = FULL_BITS

    def __post_init__(self) -> None:
        check_bits(self.bits, "quantise.bits")


@dataclass
class Config:
    """One run. Groups of conf/ fill dataset, model, method and attack."""

    dataset: DatasetConfig = MISSING
    model: Any = MISSING
    method: Any = MISSING
    attack: SuiteConfig = MISSING
    threat: ThreatConfig = field(default_factory=ThreatConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    # A Schedule each; besides, fields that one stage of a method has for itself: schedule.retrain.epochs=20
    schedule: dict[str, Any] = field(default_factory=lambda: {name: Schedule() for name in SCHEDULES})
    quantise: QuantiseConfig = field(default_factory=QuantiseConfig)
    seed: int = 0
    device: str = "auto"
    out: str = "outputs"
    data_dir: str = "data"
    ratio: float = MISSING  # the default of method.ratio
    fresh: bool = False

    def __post_init__(self) -> None:
        own = {name: fields for name, fields in self.schedule.items() if not isinstance(fields, Schedule)}
        self.schedule = self.schedule | {name: _fields(name, chosen) for name, chosen in own.items()}

    @property
    def weight_bits(self) -> int:
        """The width of a stored weight in the finished network."""
        return min(self.method.weight_bits, self.quantise.bits)

    @property
    def selection(self) -> str:
        """Whose weights a stage hands on: last, best, or best_on_test."""
        return self.method.selection(self.training.selection)

    def said(self) -> list[str]:
        """What trains otherwise than the method does by itself, in words: objective, averaged weights, quirks."""
        beta = "" if self.objective.beta is None else f" (beta {self.objective.beta:g})"
        own = replace(self, objective=ObjectiveConfig())
        same = self.method.stages(own.recipe_context()) == self.method.stages(self.recipe_context())
        objective = [] if same else [f"objective {self.objective.name}{beta}"]
        tau = self.training.weight_average
        averaged = [f"weights averaged (tau {tau:g})"] if tau else []
        return [*objective, *averaged, *(f"quirk {name}" for name in sorted(set(self.method.quirks)))]

    def check(self) -> None:
        """UserError for settings that are each allowed and cannot be meant together."""
        shape, eps = self.dataset.shape, float(self.threat.eps)
        if self.threat.norm == "L2" and eps > math.sqrt(math.prod(shape)):
            raise UserError(
                f"threat.eps={eps:g} in L2 allows any image, as black and white of {'x'.join(map(str, shape))} are "
                f"{math.sqrt(math.prod(shape)):.4g} apart; pixels are in [0, 1], and 0.5 to 3 is usual."
            )
        if self.dataset.classes is not None:
            self.attack.check(self.dataset.classes)
        self.stages()

    def check_training(self, overrides: Sequence[str]) -> None:
        """UserError for what could be trained and cannot be meant: no epoch at all, `misplaced` milestones typed."""
        stages = self.stages()
        if not any(stage.schedule.epochs for stage in stages) and not self.model.weights:
            raise UserError(
                f"all stages of method={self.method.name} have 0 epochs, so nothing would be trained; set "
                f"schedule.{stages[0].schedule_name}.epochs, or model.weights=FILE for a network trained already."
            )
        for key, sentence in self.misplaced().items():
            if any(override.lstrip("+").startswith(f"{key}.milestones=") for override in overrides):
                raise UserError(sentence)

    def misplaced(self) -> dict[str, str]:
        """A sentence for each schedule, by its key, that has milestones outside the epochs of its stage."""
        found = {}
        for stage in (stage for stage in self.stages() if stage.outside()):
            fields_of_its_own = self.schedule.get(stage.name)
            own = isinstance(fields_of_its_own, Mapping) and "milestones" in fields_of_its_own
            key, epochs = f"schedule.{stage.name if own else stage.schedule_name}", stage.schedule.epochs
            found[key] = (
                f"{stage.outside()} of the {len(stage.schedule.milestones)} milestones of {key} lie outside the "
                f"{epochs} epochs of stage {stage.name}, where the learning rate does not fall by them; give others, "
                f"as in {key}.milestones=[{epochs / 2:g}], or shorten both by method.epochs_scale."
            )
        return found

    def inner_attack(self) -> PGD:
        """The PGD of training."""
        how = self.training.attack
        attack = PGD(
            self.threat.eps, self.threat.norm, how.bn_mode, how.steps, None, how.relative_step, how.random_start
        )
        return self.method.inner_attack(attack)

    def recipe_context(self) -> RecipeContext:
        """What the method makes its stages of."""
        attack = self.inner_attack()
        chosen = objective_named(self.objective.name, attack, self.objective.beta)
        self.method.check_objective(chosen)
        adversarial = chosen or Adversarial(attack, self.training.natural_weight)
        return RecipeContext(
            Natural(), adversarial, self.schedule, attack, chosen, self.method.epochs_scale, self.training.lr_scale
        )

    def stages(self) -> list[Stage]:
        """The stages that the method trains under this configuration, the codebook after training included."""
        stages = self.method.stages(self.recipe_context())
        if self.quantise.bits < FULL_BITS:
            last = stages[-1]
            codebook = PostTraining(self.quantise.bits, "stale_statistics" in self.method.quirks)
            # the name seeds random numbers, as every stage's does: it stays as it was first spelled
            stages.append(Stage("quantize", last.objective, Schedule(epochs=0), codebook, last.parameterisation))
        return stages


def _fields(name: str, chosen: Any) -> dict[str, Any]:
    """Some fields of a schedule, typed; UserError for what a schedule does not have."""
    if not isinstance(chosen, Mapping):
        raise UserError(
            f"schedule.{name}={chosen} has the wrong type; set its fields, as in schedule.{name}.epochs=20."
        )
    typed, known = OmegaConf.structured(Schedule), [f.name for f in fields(Schedule)]
    for key, value in chosen.items():
        if key not in known:
            raise unknown(f"key of schedule.{name}", key, known)
        try:
            typed[key] = value
        except OmegaConfBaseException:
            raise UserError(
                f"schedule.{name}.{key}={value} has the wrong type; write it as in schedule.dense.{key}."
            ) from None
    # no Schedule: whether its fields go together depends on the stage's epochs
    plain: Any = OmegaConf.to_container(typed)
    return {key: plain[key] for key in chosen}
