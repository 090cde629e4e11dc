"""What the runs of a table came to, and what the paper printed for the same points."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robcomp.errors import UserError
from robcomp.report import render, schema
from robcomp.tables import published
from robcomp.tables.spec import Job, Point, Row, TableSpec


@dataclass(frozen=True)
class Record:
    """A job's run: its checked report and per-image outcomes; no report where the run failed."""

    label: str
    point: Point
    overrides: list[str]
    run: str | None  # <dataset>-<model>-<method>/<hash>
    report: dict[str, Any] | None
    outcomes: dict[str, np.ndarray]


def collect(todo: list[Job], runs: list[Path | None]) -> list[Record]:
    """A record for each job from its run directory, None for a run that failed."""
    return [_record(job, run) for job, run in zip(todo, runs, strict=True)]


def _record(job: Job, run: Path | None) -> Record:
    if run is None:
        return Record(job.label, job.point, job.overrides, None, None, {})
    with np.load(run / "outcomes.npz") as arrays:
        outcomes = {name: arrays[name].astype(bool) for name in arrays.files if "." not in name}  # no distances
    name = f"{run.parent.name}/{run.name}"
    return Record(job.label, job.point, job.overrides, name, schema.read(run / "report.json"), outcomes)


def summary(record: Record, spec: TableSpec) -> dict[str, Any]:
    """A record as the table's JSON file keeps it: what the page shows of the run, and the paper's figures beside it."""
    row = next(row for row in spec.rows if row.label == record.label)
    printed = {key: printed_figure(spec, row, record.point, metric) for key, metric in spec.columns.accuracy.items()}
    entry = {"label": record.label, "point": record.point, "overrides": record.overrides, "run": record.run}
    entry["published"] = {key: value for key, value in printed.items() if value is not None}
    if record.report is None:
        return entry
    report = record.report
    accuracy = {key: report["accuracy"][key] for key in spec.columns.accuracy if key in report["accuracy"]}
    sizes = {key: dict(report["size"][key]) for key in {*spec.columns.size, spec.columns.x}}
    for size in sizes.values():
        del size["definition"]
    kept = ("value", "interval", "images")
    return {
        **entry,
        "accuracy": {key: {name: value[name] for name in kept} for key, value in accuracy.items()},
        "size": sizes,
        "run_facts": {key: report["run"][key] for key in ("seed", "seconds", "finished", "train_epochs", "machine")},
        "robcomp": report["robcomp"],
        "data": report["data"],
        "threat": report["threat"],
        "doubt": render.trust(report) if schema.doubt(report) else None,
    }


def printed_figure(spec: TableSpec, row: Row, point: Point, metric: str) -> float | None:
    """The paper's figure for a row at a point, or None; UserError where more than one row of the paper fits."""
    if row.published is None:
        return None
    match = {**spec.match, **row.match}
    found = [
        entry["value"]
        for entry in published.figures(**spec.published, method=row.published, metric=metric)
        if all(
            _fits(entry[match[key].column], match[key].values, value) for key, value in point.items() if key in match
        )
    ]
    if len(found) > 1:
        raise UserError(
            f"{len(found)} published figures of {row.published} fit {metric} at {point or 'its single run'}; "
            "narrow `published` or `match` in the table's spec."
        )
    return found[0] if found else None


def published_curves(spec: TableSpec) -> list[dict[str, Any]]:
    """The paper's curves: label of our row, key of the accuracy, and its [size fraction, percent] in order of size."""
    curves = []
    for row in spec.rows:
        for key, metric in spec.columns.accuracy.items():
            if row.published is None:
                continue
            rows = published.figures(**spec.published, method=row.published, metric=metric)
            sizes = [(published.size_fraction(entry), entry["value"]) for entry in rows]
            curve = sorted([size, value] for size, value in sizes if size is not None and value is not None)
            curves.append({"label": row.label, "key": key, "points": curve})
    return curves


def _fits(printed: Any, translation: dict[float, float], value: Any) -> bool:
    """Whether a published cell is the one for a grid value; read from drawings, half a percent counts as equal."""
    wanted = translation.get(value) if translation else value
    if isinstance(printed, float) and isinstance(wanted, int | float):
        return math.isclose(printed, wanted, rel_tol=5e-3)
    return printed is not None and printed == wanted
