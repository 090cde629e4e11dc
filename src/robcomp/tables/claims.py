"""Whether a paper's claims hold for our runs: each claim bounds a quantity, and its 95 % interval decides."""

import math
from typing import Any

from robcomp.evaluation.statistics import paired_difference
from robcomp.tables.records import Record
from robcomp.tables.spec import Comparison, Point, TableSpec, points

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"


def compare(spec: TableSpec, scale: str, records: list[Record]) -> list[dict[str, Any]]:
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


def _judge(claim: Comparison, point: Point, records: list[Record]) -> dict[str, Any]:
    result = {"claim": claim.claim, "metric": claim.metric, "point": point, "estimate": None, "pair": claim.row is None}
    found = [_record(records, label, point) for label in claim.rows()]
    trouble = _trouble(claim, found)
    if trouble:
        return {**result, "conclusion": f"none ({trouble})"}
    bounds = _difference(claim, found) if claim.row is None else _single(claim, found[0])
    return {**result, **bounds, "conclusion": conclusion(bounds["low"], bounds["high"], *_bounds(claim))}


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
        if claim.metric not in record.report["accuracy"] or claim.metric not in record.outcomes:
            return f"{label} has no {claim.metric} outcomes"
    if len({record.outcomes[claim.metric].shape for record in found}) > 1:
        return "the runs were evaluated on different test images"
    return None


def _difference(claim: Comparison, found: list[Record]) -> dict[str, Any]:
    better, worse = (record.outcomes[claim.metric] for record in found)
    paired = paired_difference(better, worse)
    percent = {name: 100 * paired[key] for name, key in (("estimate", "difference"), ("low", "low"), ("high", "high"))}
    return {**percent, "p_value": paired["p_value"]}


def _single(claim: Comparison, record: Record) -> dict[str, Any]:
    entry = record.report["accuracy"][claim.metric]
    low, high = entry["interval"]
    return {"estimate": 100 * entry["value"], "low": 100 * low, "high": 100 * high, "p_value": None}


def _bounds(claim: Comparison) -> tuple[float, float]:
    """The claimed range of the quantity, in points."""
    if claim.within is not None:
        return -claim.within, claim.within
    floor = -math.inf if claim.at_least is None else claim.at_least
    return floor, math.inf if claim.at_most is None else claim.at_most
