"""conf/table/NAME.yaml: what a table of a paper is made of, and the runs that it asks for."""

from dataclasses import dataclass, field
from itertools import product
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robcomp.errors import UserError, unknown
from robcomp.settings.choices import choices, conf_dir
from robcomp.tables import published

SIZES = ("file", "coded", "nominal")
Point = dict[str, Any]  # one choice of the grid: {"method.ratio": 0.006}; {} for a row without a grid


@dataclass
class Match:
    """Where the paper's figure for a grid value stands: the published row whose `column` equals it, or its translation.

    `values` (grid value -> published value) is for papers that print another quantity than the one that the grid sets.
    """

    column: str
    values: dict[float, float] = field(default_factory=dict)


@dataclass
class Row:
    """A method of the table: our overrides and the paper's name of the same thing."""

    label: str
    published: str | None = None
    overrides: list[str] = field(default_factory=list)
    scale_overrides: dict[str, list[str]] = field(default_factory=dict)
    grid: bool = True  # False: a single run, for a method without the grid's settings
    skip: dict[str, list[Any]] = field(default_factory=dict)  # setting -> values of the grid that the row cannot have
    match: dict[str, Match] = field(default_factory=dict)


@dataclass
class Scale:
    """How large the runs are, and what a reader must know about it."""

    note: str
    overrides: list[str] = field(default_factory=list)
    grid: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class Columns:
    """Accuracies (key of report.json -> the paper's metric), sizes, and the size on the figure's axis."""

    accuracy: dict[str, str]
    size: list[str]
    x: str


@dataclass
class Comparison:
    """A claim in points, at each point of the grid or at one: about two rows (better - worse), or about one row."""

    claim: str
    metric: str
    better: str | None = None
    worse: str | None = None
    row: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    within: float | None = None  # of two rows: neither is further above the other
    at: dict[str, Any] = field(default_factory=dict)

    def rows(self) -> list[str]:
        """The rows the claim is about, the better one first."""
        return [label for label in (self.row, self.better, self.worse) if label is not None]


@dataclass
class TableSpec:
    """A table: its rows, scales, published figures and claims."""

    title: str
    source: str
    overrides: list[str]
    published: dict[str, Any]
    columns: Columns
    scales: dict[str, Scale]
    rows: list[Row]
    match: dict[str, Match] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One run of a table: its row, its point of the grid, and the overrides that `robcomp train` would get."""

    label: str
    point: Point
    overrides: list[str]


def names() -> list[str]:
    """The tables that can be built."""
    return choices("table")


def load(name: str) -> TableSpec:
    """The spec conf/table/`name`.yaml, checked; UserError for an unknown name, key, row or a claim without bound."""
    if name not in names():
        raise unknown("table", name, names())
    return parse((conf_dir() / "table" / f"{name}.yaml").read_text(encoding="utf-8"), f"conf/table/{name}.yaml")


def parse(text: str, source: str) -> TableSpec:
    """The spec in the YAML `text`; `source` names it in errors."""
    try:
        spec = cast(
            TableSpec, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TableSpec), OmegaConf.create(text)))
        )
    except OmegaConfBaseException as error:
        raise UserError(
            f"{source}: {str(error).splitlines()[0]}; see conf/table/atmc-mnist.yaml for the form."
        ) from None
    _check_columns(spec, source)
    for claim in spec.comparisons:
        _check_claim(claim, spec, source)
    return spec


def jobs(spec: TableSpec, scale: str, extra_overrides: list[str]) -> list[Job]:
    """The runs of a table at a scale. Later overrides win: spec, row, scale, row at scale, point, extra."""
    if scale not in spec.scales:
        raise unknown("scale", scale, spec.scales)
    size = spec.scales[scale]
    result = []
    for row in spec.rows:
        fixed = [*spec.overrides, *row.overrides, *size.overrides, *row.scale_overrides.get(scale, [])]
        for point in points(size) if row.grid else [{}]:
            if any(point.get(key) in values for key, values in row.skip.items()):
                continue
            chosen = [f"{key}={value}" for key, value in point.items()]
            result.append(Job(row.label, point, [*fixed, *chosen, *extra_overrides]))
    return result


def points(scale: Scale) -> list[Point]:
    """All combinations of the grid's values."""
    return [dict(zip(scale.grid, values, strict=True)) for values in product(*scale.grid.values())]


def _check_columns(spec: TableSpec, source: str) -> None:
    """UserError for a size that reports do not have, or a column that the published figures do not."""
    for size in (*spec.columns.size, spec.columns.x):
        if size not in SIZES:
            raise unknown(f"size in {source}", size, SIZES)
    printed = published.columns()
    for match in (*spec.match.values(), *(match for row in spec.rows for match in row.match.values())):
        if match.column not in printed:
            raise unknown(f"column of the published figures in {source}", match.column, printed)


def _check_claim(claim: Comparison, spec: TableSpec, source: str) -> None:
    labels = [row.label for row in spec.rows]
    for label in claim.rows():
        if label not in labels:
            raise unknown("row", label, labels)
    pair = claim.row is None and claim.better is not None and claim.worse is not None
    single = claim.row is not None and claim.better is None and claim.worse is None
    bounds = [bound for bound in (claim.at_least, claim.at_most, claim.within) if bound is not None]
    if not (pair or single) or len(bounds) != 1 or (single and claim.within is not None):
        raise UserError(
            f"{source}: the claim '{claim.claim}' needs either better and worse with at_least, at_most or within, "
            "or row with at_least or at_most; give exactly one bound."
        )
