"""What the runs of a table came to, and what the paper printed for the same points."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robcomp.errors import UserError
from robcomp.report import render
from robcomp.report.accuracy import Proportion
from robcomp.report.results import PublishedCurve, SizeShare, TableRecord, TableRun
from robcomp.report.schema import Report
from robcomp.tables import published
from robcomp.tables.spec import Job, Point, Row, TableSpec


@dataclass(frozen=True)
class Record:
    """A job's run: its checked report and per-image outcomes; no report where the run failed."""

    label: str
    point: Point
    overrides: list[str]
    run: str | None  # <dataset>-<model>-<method>/<hash>
    report: Report | None
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
    return Record(job.label, job.point, job.overrides, name, Report.read(run / "report.json"), outcomes)


def summary(record: Record, spec: TableSpec) -> TableRecord:
    """A record as the table's JSON file keeps it: what the page shows of the run, and the paper's figures beside it."""
    row = next(row for row in spec.rows if row.label == record.label)
    printed = {key: printed_figure(spec, row, record.point, metric) for key, metric in spec.columns.accuracy.items()}
    return TableRecord(
        label=record.label,
        point=record.point,
        overrides=record.overrides,
        run=record.run,
        published={key: value for key, value in printed.items() if value is not None},
        result=None if record.report is None else _result(record.report, spec),
    )


def _result(report: Report, spec: TableSpec) -> TableRun:
    accuracy, sizes, run = report.accuracy.entries(), report.size.named(), report.run
    return TableRun(
        accuracy={key: _plain(accuracy[key]) for key in spec.columns.accuracy if key in accuracy},
        size={
            key: SizeShare(bytes=sizes[key].bytes, fraction=sizes[key].fraction)
            for key in dict.fromkeys([*spec.columns.size, spec.columns.x])
        },
        seed=run.seed,
        seconds=run.seconds,
        finished=run.finished,
        train_epochs=run.train_epochs,
        machine=run.machine,
        robcomp=report.robcomp,
        data=report.data,
        threat=report.threat,
        doubt=render.trust(report) if report.doubt else None,
    )


def _plain(entry: Proportion) -> Proportion:
    """The figure without the attack's settings."""
    return Proportion(value=entry.value, correct=entry.correct, images=entry.images, interval=entry.interval)


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


def published_curves(spec: TableSpec) -> list[PublishedCurve]:
    """The paper's curves, one for each of our rows and accuracies."""
    curves = []
    for row in spec.rows:
        for key, metric in spec.columns.accuracy.items():
            if row.published is None:
                continue
            rows = published.figures(**spec.published, method=row.published, metric=metric)
            sizes = [(published.size_fraction(entry), entry["value"]) for entry in rows]
            points = sorted((size, value) for size, value in sizes if size is not None and value is not None)
            curves.append(PublishedCurve(label=row.label, key=key, points=points))
    return curves


def _fits(printed: Any, translation: dict[float, float], value: Any) -> bool:
    """Whether a published cell is the one for a grid value; read from drawings, half a percent counts as equal."""
    wanted = translation.get(value) if translation else value
    if isinstance(printed, float) and isinstance(wanted, int | float):
        return math.isclose(printed, wanted, rel_tol=5e-3)
    return printed is not None and printed == wanted
