"""The Markdown page of a rebuilt table."""

import shlex
import textwrap
from collections.abc import Iterator

from robcomp.report.accuracy import Proportion
from robcomp.report.formatting import byte_size, duration, interval, markdown_table, share
from robcomp.report.results import JudgedClaim, SizeShare, TableRecord, TableResult, TableRun
from robcomp.report.schema import DOUBT


def page(table: TableResult, figure: str) -> str:
    """The page of an assembled table; `figure` is the name of the picture beside it."""
    parts = [
        f"# {table.title}",
        f"Source: {table.source}.",
        f"Scale `{table.scale}`: {table.note}",
        *_setting(table),
        _results(table),
        "Accuracies in percent with their 95 % interval over test images"
        + ("; *paper* is the published figure, - where the paper has none." if _printed(table) else "."),
        f"![accuracy against size]({figure})",
        *_doubts(table),
        *_claims(table),
        "## Sizes",
        "\n".join(f"- {key}: {text}" for key, text in table.definitions.items()) or "No run finished.",
        "## How this page was made",
        _provenance(table),
    ]
    return "\n\n".join(map(_wrapped, parts)) + "\n"


def _wrapped(part: str) -> str:
    """Prose in lines of ordinary length; tables, pictures and headings as they are."""
    if part.startswith(("|", "!", "#")):
        return part
    lines = (textwrap.wrap(line, 120, subsequent_indent="  " * line.startswith("- ")) for line in part.split("\n"))
    return "\n".join("\n".join(wrapped) for wrapped in lines)


def _finished(table: TableResult) -> list[tuple[TableRecord, TableRun]]:
    return [(record, record.result) for record in table.records if record.result is not None]


def _setting(table: TableResult) -> Iterator[str]:
    """Data and threat of the runs, as they report them."""
    settings = {
        f"{run.data.name}: {run.data.train:,} training, {run.data.val:,} held-out and {run.data.test:,} test images; "
        f"{run.train_epochs} epochs; {run.threat.norm} eps {run.threat.eps:.4g}; seed {run.seed}."
        for _, run in _finished(table)
    }
    if settings:
        yield "\n".join(sorted(settings))


def _doubts(table: TableResult) -> Iterator[str]:
    """What speaks against figures of the table."""
    said = [f"- {record.label} {record.run}: {run.doubt}" for record, run in _finished(table) if run.doubt]
    if said:
        yield "\n".join(["Figures marked (!) are not to be trusted:", "", *said])


def _results(table: TableResult) -> str:
    heads = ["method", *(key.split(".")[-1] for key in table.grid)]
    for key in table.accuracy:
        heads += [_title(key), *(["paper"] if _printed(table) else [])]
    heads += [*(f"{key} size" for key in table.size), "run time"]
    return markdown_table(heads, [_row(record, table) for record in table.records])


def _printed(table: TableResult) -> bool:
    """Whether a paper has a figure for any row."""
    return any(record.published for record in table.records)


def _row(record: TableRecord, table: TableResult) -> list[str]:
    cells, run = [record.label, *(f"{record.point.get(key, '-')}" for key in table.grid)], record.result
    for key in table.accuracy:
        printed = record.published.get(key)
        mark = DOUBT if key != "clean" and run is not None and run.doubt else ""
        ours = "failed" if run is None else _accuracy(run.accuracy.get(key)) + mark
        cells += [ours, *(["-" if printed is None else f"{printed:.1f}"] if _printed(table) else [])]
    if run is None:
        return [*cells, *("-" for _ in table.size), "-"]
    return [*cells, *(_size(key, run.size[key]) for key in table.size), duration(run.seconds)]


def _accuracy(entry: Proportion | None) -> str:
    return "-" if entry is None else f"{100 * entry.value:.1f} {interval(entry.interval)}"


def _size(name: str, size: SizeShare) -> str:
    """The real size in bytes with its share, counted ones as a share only."""
    return f"{byte_size(size.bytes)} ({share(size.fraction)})" if name == "file" else share(size.fraction)


def _title(key: str) -> str:
    """clean, worst case, PGD."""
    return key.replace("_", " ") if key in ("clean", "worst_case") else key.upper()


def _claims(table: TableResult) -> Iterator[str]:
    if not table.comparisons:
        return
    heads = ["claim", *(key.split(".")[-1] for key in table.grid), "measured", "95 % interval", "p", "conclusion"]
    yield "## Claims"
    yield markdown_table(heads, [_claim(entry, table) for entry in table.comparisons])
    yield (
        "Two methods are compared on the same test images: the difference in points, its paired 95 % interval and "
        "McNemar's exact p. The interval covers the choice of test images, not that of the training seed."
    )


def _claim(entry: JudgedClaim, table: TableResult) -> list[str]:
    cells = [entry.claim, *(f"{entry.point.get(key, '-')}" for key in table.grid)]
    if entry.estimate is None:
        return [*cells, "-", "-", "-", entry.conclusion]
    sign, unit = ("+", "points") if entry.pair else ("", "%")
    p_value = "-" if entry.p_value is None else f"{entry.p_value:.2g}"
    measured = f"{_title(entry.metric)} {entry.estimate:{sign}.1f} {unit}"
    return [*cells, measured, f"[{entry.low:{sign}.1f}, {entry.high:{sign}.1f}]", p_value, entry.conclusion]


def _provenance(table: TableResult) -> str:
    """The command, and when, where and with what the runs were made."""
    command = shlex.join(["robcomp", "table", table.name, "--scale", table.scale, *table.extra])
    lines = [f"- Rebuild: `{command}`"]
    done = [run for _, run in _finished(table)]
    if done:
        dates = sorted(run.finished[:10] for run in done)
        machines = {f"{m.name} ({m.device}, {m.precision}, torch {m.torch})" for m in (run.machine for run in done)}
        lines += [
            f"- Runs finished {dates[0]}" + (f" to {dates[-1]}" if dates[-1] != dates[0] else ""),
            f"- Machine: {'; '.join(sorted(machines))}",
            f"- robcomp {', '.join(sorted({run.robcomp for run in done}))}; run time "
            f"{duration(sum(run.seconds for run in done))} over {len(done)} runs",
        ]
    failed = [record for record in table.records if record.result is None]
    lines += [f"- Failed: {record.label} (`{' '.join(record.overrides)}`)" for record in failed]
    return "\n".join(lines)
