"""A paper's table rebuilt: its runs, our figures beside the published ones, the paper's claims judged.

A spec, conf/table/NAME.yaml, says which runs, `build` has them run and writes three files: NAME-SCALE.md (the page),
.png (accuracy against size) and .json (the collected records, from which `write` makes the other two again).
"""

from collections.abc import Callable
from pathlib import Path

from robcomp.figures.style import drawable
from robcomp.figures.table import draw
from robcomp.report.results import TableResult
from robcomp.runs.beforehand import writable
from robcomp.storage import write_text
from robcomp.tables.claims import compare
from robcomp.tables.page import page
from robcomp.tables.records import Record, collect, published_curves, summary
from robcomp.tables.spec import TableSpec, jobs, load


def build(
    name: str, scale: str, extra: list[str], run_all: Callable[[list[list[str]]], list[Path | None]], out: Path
) -> Path:
    """Run the table `name` at `scale` and write its three files into `out`; returns the path of the page.

    `run_all` gets one list of overrides a run and returns the run directories in the same order, None for a failed run.
    """
    # What would go wrong after hours of runs is told now: no matplotlib, a target that cannot be written, and, from the
    # table without a single run, figures of the paper that the spec does not find.
    drawable()
    writable(out)
    spec = load(name)
    todo = jobs(spec, scale, extra)
    page(assemble(name, spec, scale, extra, collect(todo, [None] * len(todo))), "")
    records = collect(todo, run_all([job.overrides for job in todo]))
    return write(assemble(name, spec, scale, extra, records), out)


def assemble(name: str, spec: TableSpec, scale: str, extra: list[str], records: list[Record]) -> TableResult:
    """Everything that the page and the figure show."""
    sizes = next((record.report.size.named() for record in records if record.report is not None), {})
    return TableResult.make(
        name=name,
        scale=scale,
        extra=extra,
        title=spec.title,
        source=spec.source,
        note=spec.scales[scale].note,
        grid=list(spec.scales[scale].grid),
        accuracy=list(spec.columns.accuracy),
        size=spec.columns.size,
        x=spec.columns.x,
        definitions={key: sizes[key].definition for key in spec.columns.size if key in sizes},
        records=[summary(record, spec) for record in records],
        published=published_curves(spec),
        comparisons=compare(spec, scale, records),
    )


def write(table: TableResult, out: Path) -> Path:
    """Write an assembled table into `out` as JSON, figure and page; returns the path of the page."""
    stem = f"{table.name}-{table.scale}"
    table.write(out / f"{stem}.json")
    draw(table, out / f"{stem}.png")
    write_text(out / f"{stem}.md", page(table, f"{stem}.png"))
    return out / f"{stem}.md"
