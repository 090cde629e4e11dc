"""What `robcomp transfer` writes."""

from dataclasses import dataclass
from typing import ClassVar

from robcomp.report.accuracy import Proportion, Settings
from robcomp.report.records import meaning
from robcomp.report.results.analysis import Analysis


@dataclass(frozen=True, kw_only=True)
class TargetAccuracy(Proportion):
    """The accuracy of a network that others' images are shown to."""

    target: str = meaning("label of the run that classifies")


@dataclass(frozen=True, kw_only=True)
class TransferCell(TargetAccuracy):
    """The accuracy of a target on the images made on a source."""

    source: str = meaning("label of the run on which the images were made")
    white_box: bool = meaning("whether both are one network")
    seconds: float = meaning("time of making the images")


@dataclass(frozen=True, kw_only=True)
class TransferMatrix:
    """Every source against every target."""

    name: str = meaning("name of the attack in the suite")
    eps: float = meaning("its eps")
    attack: Settings = meaning("its settings")
    cells: list[TransferCell] = meaning("source by source, each target")


@dataclass(frozen=True, kw_only=True)
class TransferResult(Analysis):
    """`robcomp transfer`: adversarial images made on one network, shown to others."""

    SCHEMA: ClassVar[str] = "robcomp-transfer/1"

    clean: list[TargetAccuracy] = meaning("each target on the unchanged images")
    matrices: list[TransferMatrix] = meaning("one for each attack and eps")
