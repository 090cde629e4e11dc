"""What `robcomp losses` writes."""

from dataclasses import dataclass
from typing import ClassVar

from robcomp.report.records import Document, meaning
from robcomp.report.results.reported import NamedRun


@dataclass(frozen=True, kw_only=True)
class StageEpochs:
    """A stage in a log."""

    name: str = meaning("name of the stage")
    epochs: int = meaning("its finished epochs")


@dataclass(frozen=True, kw_only=True)
class EpochLosses:
    """One epoch; null where the log has no such figure."""

    stage: str = meaning("name of the stage")
    epoch: int = meaning("its number in the stage, from 1")
    loss: float | None = meaning("mean training loss")
    adversarial_loss: float | None = meaning("mean cross-entropy on the adversarial images of the training batches")
    clean: float | None = meaning("accuracy on the training batches")
    robust: float | None = meaning("accuracy on their adversarial images")
    val_clean: float | None = meaning("accuracy on held-out images")
    val_robust: float | None = meaning("accuracy on their adversarial images")
    lr: float | None = meaning("learning rate at the end of the epoch")


@dataclass(frozen=True, kw_only=True)
class RunLosses(NamedRun):
    """The course of a run."""

    stages: list[StageEpochs] = meaning("the stages in order")
    epochs: list[EpochLosses] = meaning("the epochs of all stages")


@dataclass(frozen=True, kw_only=True)
class LossesResult(Document):
    """`robcomp losses`: the adversarial loss over the epochs of all stages."""

    SCHEMA: ClassVar[str] = "robcomp-losses/1"

    finished: str = meaning("when it ended, ISO 8601 with time zone")
    runs: list[RunLosses] = meaning("the runs that have adversarial losses")
    left_out: list[str] = meaning("labels of those that have none")
