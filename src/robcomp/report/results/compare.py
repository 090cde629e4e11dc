"""What `robcomp compare` prints."""

from dataclasses import dataclass
from typing import ClassVar

from robcomp.report.records import Document, meaning
from robcomp.report.results.reported import SizeShare
from robcomp.report.schema import Threat


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How much more often a is correct than b on the same images."""

    n: int = meaning("number of images")
    difference: float = meaning("mean of a minus mean of b, a fraction")
    level: float = meaning("level of the interval")
    low: float = meaning("its lower end (Newcombe, 1998, method 10)")
    high: float = meaning("its upper end")
    p_value: float = meaning("two-sided exact McNemar test")
    both: int = meaning("images that both classify correctly")
    only_a: int = meaning("images that a alone classifies correctly")
    only_b: int = meaning("images that b alone classifies correctly")
    neither: int = meaning("images that neither does")


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """A side of a comparison."""

    path: str = meaning("the directory or file given")
    label: str = meaning("what was run, and where it lies")
    run: str = meaning("hash of its configuration")
    threat: Threat = meaning("the threat model of its figures")
    size: dict[str, SizeShare] = meaning("its `file` and `nominal` size")


@dataclass(frozen=True, kw_only=True)
class ComparedAccuracy:
    """One accuracy of both sides: the comparison, or the reason why there is none."""

    not_comparable: str | None = meaning("why the two figures mean different things", default=None)
    a: float | None = meaning("accuracy of a", default=None)
    b: float | None = meaning("accuracy of b", default=None)
    paired: PairedDifference | None = meaning("the difference a - b on the same images", default=None)
    conclusion: str | None = meaning("what the interval says, in words", default=None)


@dataclass(frozen=True, kw_only=True)
class CompareResult(Document):
    """`robcomp compare`: two finished runs, image by image."""

    SCHEMA: ClassVar[str] = "robcomp-compare/3"

    a: ComparedRun = meaning("the first run")
    b: ComparedRun = meaning("the second run")
    images: int = meaning("number of test images")
    checksum: str = meaning("digest of the stored data")
    accuracy: dict[str, ComparedAccuracy] = meaning("clean, each attack of both, worst_case")
    only_a: list[str] = meaning("attacks that only a met")
    only_b: list[str] = meaning("attacks that only b met")
