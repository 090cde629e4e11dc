"""What the analyses that attack networks have in common."""

from dataclasses import dataclass
from typing import ClassVar

from robcomp.report.records import Document, meaning
from robcomp.report.schema import Machine, Threat


@dataclass(frozen=True, kw_only=True)
class Images:
    """The test images of an analysis."""

    name: str = meaning("name of the data set")
    checksum: str = meaning("digest of the stored data")
    test: int = meaning("how many test images were used")
    classes: int = meaning("number of classes")
    official: bool = meaning("whether these are the published images in their own split and order")


@dataclass(frozen=True, kw_only=True)
class AttackedRun:
    """A run whose network is attacked."""

    label: str = meaning("what the run is called in tables and figures")
    folder: str = meaning("its directory")
    sha256: str = meaning("SHA-256 of its model.rcz")
    id: str = meaning("hash of its configuration")
    model: str = meaning("name of its model")
    method: str = meaning("name of its method")
    threat: Threat = meaning("what it was trained against")
    trusted: bool | None = meaning("the verdict in its report; null where it has none, or an open one")


@dataclass(frozen=True, kw_only=True)
class Analysis(Document):
    """What the analyses that attack networks have in common."""

    AGAIN: ClassVar[str] = "run the analysis again with fresh=true"

    finished: str = meaning("when it ended, ISO 8601 with time zone")
    machine: Machine = meaning("what it was computed on")
    seed: int = meaning("the seed of the attacks")
    overrides: list[str] = meaning("what its command line set")
    data: Images = meaning("the test images")
    runs: list[AttackedRun] = meaning("the runs")
