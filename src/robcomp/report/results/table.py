"""What `robcomp table` writes."""

from dataclasses import dataclass
from typing import Any, ClassVar

from robcomp.report.accuracy import Proportion
from robcomp.report.records import Document, meaning
from robcomp.report.results.reported import SizeShare
from robcomp.report.schema import DataFacts, Machine, Threat


@dataclass(frozen=True, kw_only=True)
class TableRun:
    """What a table keeps of a finished run."""

    accuracy: dict[str, Proportion] = meaning("the table's accuracies, by their names in report.json")
    size: dict[str, SizeShare] = meaning("the table's sizes")
    seed: int = meaning("seed of the run")
    seconds: float = meaning("its time")
    finished: str = meaning("when it ended, ISO 8601 with time zone")
    train_epochs: int = meaning("epochs of all its stages")
    machine: Machine = meaning("what it was computed on")
    robcomp: str = meaning("version of robcomp that ran it")
    data: DataFacts = meaning("the images")
    threat: Threat = meaning("what it was trained against")
    doubt: str | None = meaning("what speaks against its figures under attack", default=None)


@dataclass(frozen=True, kw_only=True)
class TableRecord:
    """A point of a row."""

    label: str = meaning("label of the row")
    point: dict[str, Any] = meaning("the grid's settings at this point; empty for a row without a grid")
    overrides: list[str] = meaning("what `robcomp train` was given")
    run: str | None = meaning("the run directory, `<dataset>-<model>-<method>/<hash>`; null where the run failed")
    published: dict[str, float] = meaning("the paper's figures for the same point, in percent")
    result: TableRun | None = meaning("what the run came to", default=None)


@dataclass(frozen=True, kw_only=True)
class PublishedCurve:
    """A curve of the paper."""

    label: str = meaning("label of our row")
    key: str = meaning("the accuracy")
    points: list[tuple[float, float]] = meaning("[size as a fraction, percent], in order of size")


@dataclass(frozen=True, kw_only=True)
class JudgedClaim:
    """A claim at a point; the quantity in points."""

    claim: str = meaning("the claim in words")
    metric: str = meaning("the accuracy that it is about")
    point: dict[str, Any] = meaning("the grid's settings at this point")
    pair: bool = meaning("whether it is about the difference of two rows")
    estimate: float | None = meaning("the measured quantity; null where there is none")
    low: float | None = meaning("lower end of its 95 % interval", default=None)
    high: float | None = meaning("upper end", default=None)
    p_value: float | None = meaning("of a difference: two-sided exact McNemar test", default=None)
    conclusion: str = meaning("whether the claim holds")


@dataclass(frozen=True, kw_only=True)
class TableResult(Document):
    """`robcomp table`: a paper's table rebuilt; page and figure are made from it."""

    SCHEMA: ClassVar[str] = "robcomp-table/3"

    name: str = meaning("name of the table")
    scale: str = meaning("how large its runs are")
    extra: list[str] = meaning("what the command line set for all runs")
    title: str = meaning("its title")
    source: str = meaning("the paper")
    note: str = meaning("what a reader must know of the scale")
    grid: list[str] = meaning("the settings of the grid")
    accuracy: list[str] = meaning("its accuracies, by their names in report.json")
    size: list[str] = meaning("its sizes: `file`, `coded`, `nominal`")
    x: str = meaning("the size on the figure's axis")
    definitions: dict[str, str] = meaning("what each size counts, in words")
    records: list[TableRecord] = meaning("the runs")
    published: list[PublishedCurve] = meaning("the paper's curves")
    comparisons: list[JudgedClaim] = meaning("the paper's claims, judged")
