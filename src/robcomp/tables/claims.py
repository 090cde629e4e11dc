"""Whether a paper's claims hold for our runs: each claim bounds a quantity, and its 95 % interval decides."""

import math
from dataclasses import asdict, dataclass, replace

from robcomp.evaluation.statistics import paired_difference, wilson
from robcomp.report.results import JudgedClaim
from robcomp.tables.records import Record
from robcomp.tables.spec import Comparison, Point, TableSpec, points

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"


@dataclass(frozen=True)
class Quantity:
    """What a claim bounds, in points, with its 95 % interval."""

    estimate: float
    low: float
    high: float
    p_value: float | None


def compare(spec: TableSpec, scale: str, records: list[Record]) -> list[JudgedClaim]:
    """One result for each claim and point of the grid: estimate, low, high (in points), p_value and the conclusion."""
    grid = points(spec.scales[scale])
    return [_judge(claim, point, records) for claim in spec.comparisons for point in ([claim.at] if claim.at else grid)]


def conclusion(low: float, high: float, floor: float, ceiling: float) -> str:
    """Whether a quantity in the interval [low, high] lies between floor and ceiling, in words."""
    if low > floor and high < ceiling:
        return HOLDS
    if high < floor or low > ceiling:
        return FAILS
    return f"{OPEN} (interval includes {floor if low <= floor <= high else ceiling:g})"


def _judge(claim: Comparison, point: Point, records: list[Record]) -> JudgedClaim:
    judged = JudgedClaim(
        claim=claim.claim, metric=claim.metric, point=point, pair=claim.row is None, estimate=None, conclusion=""
    )
    found = [_record(records, label, point) for label in claim.rows()]
    if trouble := _trouble(claim, found):
        return replace(judged, conclusion=f"none ({trouble})")
    runs = [record for record in found if record is not None]
    measured = _difference(claim, *runs) if claim.row is None else _single(claim, *runs)
    said = conclusion(measured.low, measured.high, *_bounds(claim))
    return replace(judged, **asdict(measured), conclusion=said)


def _record(records: list[Record], label: str, point: Point) -> Record | None:
    """The run of a row at a point; a row without a grid has one run for all points."""
    return next((record for record in records if record.label == label and record.point in ({}, point)), None)


def _trouble(claim: Comparison, found: list[Record | None]) -> str | None:
    """Why the claim cannot be judged, or None."""
    for label, record in zip(claim.rows(), found, strict=True):
        if record is None:
            return f"{label} has no run at this point"
        if record.report is None:
            return f"the run of {label} failed"
        if claim.metric not in record.report.accuracy or claim.metric not in record.outcomes:
            return f"{label} has no {claim.metric} outcomes"
    if len({record.outcomes[claim.metric].shape for record in found if record is not None}) > 1:
        return "the runs were evaluated on different test images"
    return None


def _difference(claim: Comparison, better: Record, worse: Record) -> Quantity:
    paired = paired_difference(better.outcomes[claim.metric], worse.outcomes[claim.metric])
    return Quantity(100 * paired.difference, 100 * paired.low, 100 * paired.high, paired.p_value)


def _single(claim: Comparison, record: Record) -> Quantity:
    correct = record.outcomes[claim.metric]
    low, high = wilson(int(correct.sum()), len(correct))
    return Quantity(100 * float(correct.mean()), 100 * low, 100 * high, None)


def _bounds(claim: Comparison) -> tuple[float, float]:
    """The claimed range of the quantity, in points."""
    if claim.within is not None:
        return -claim.within, claim.within
    floor = -math.inf if claim.at_least is None else claim.at_least
    return floor, math.inf if claim.at_most is None else claim.at_most
