"""What `robcomp plan` says: the cost of runs before they are started."""

from dataclasses import dataclass
from typing import ClassVar

from robcomp.report.records import Document, meaning
from robcomp.report.schema import Machine


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What is still to be computed."""

    passes: float = meaning("passes of an image through the network, forward and backward ones together")
    flops: float = meaning("floating-point operations of these: two for each multiply-accumulate operation of a pass")
    seconds: float | None = meaning("predicted time; null where no pace was measured")


@dataclass(frozen=True, kw_only=True)
class PlannedStage(Cost):
    """A stage of a run."""

    name: str = meaning("name of the stage")
    epochs: int = meaning("its epochs")
    cached: bool = meaning("whether its result is there, or will be once an earlier run of the plan has trained it")
    done: float = meaning("share of the stage that a stopped run has trained already, 0 to 1")


@dataclass(frozen=True, kw_only=True)
class PlannedEvaluation(Cost):
    """The attacks on the test images, and those of the verdict."""

    images: int = meaning("test images")
    withstanding: float = meaning("share of them that the attacks on survivors are taken to meet")
    known: bool = meaning("whether finished runs of the method on the data set have shown that; else it is a guess")


@dataclass(frozen=True, kw_only=True)
class PlannedRun(Cost):
    """A run, all of its parts together."""

    folder: str = meaning("its run directory")
    overrides: list[str] = meaning("what sets it apart from the other runs of the plan")
    finished: bool = meaning("whether its report is there, so that nothing is left to be done")
    stages: list[PlannedStage] = meaning("its stages, in order")
    evaluation: PlannedEvaluation = meaning("what comes after training")
    memory: int | None = meaning("peak memory in bytes, of the process or of the GPU; null where it was not measured")


@dataclass(frozen=True, kw_only=True)
class PlanResult(Document):
    """`robcomp plan`: what runs will cost on this machine."""

    SCHEMA: ClassVar[str] = "robcomp-plan/1"

    machine: Machine = meaning("what the pace was measured on")
    jobs: int = meaning("runs side by side")
    passes: float = meaning("passes of all runs")
    flops: float = meaning("floating-point operations of all runs")
    seconds: float | None = meaning("predicted time until the last run is finished; null where no pace was measured")
    runs: list[PlannedRun] = meaning("the runs, in order")
