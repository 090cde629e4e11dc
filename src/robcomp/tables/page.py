"""The Markdown page of a rebuilt table."""

import shlex
from collections.abc import Iterator
from typing import Any

from robcomp.report.formatting import byte_size, duration, interval, markdown_table, share
from robcomp.report.schema import DOUBT


def page(table: dict[str, Any], figure: str) -> str:
    """The page of an assembled table; `figure` is the name of the picture beside it."""
    parts = [
        f"# {table['title']}",
        f"Source: {table['source']}.",
        f"Scale `{table['scale']}`: {table['note']}",
        *_setting(table),
        _results(table),
        "Accuracies in percent with their 95 % interval over test images"
        + ("; *paper* is the published figure, - where the paper has none." if _printed(table) else "."),
        f"![accuracy against size]({figure})",
        *_doubts(table),
        *_claims(table),
        "## Sizes",
        "\n".join(f"- ({key}) {text}" for key, text in table["definitions"].items()) or "No run finished.",
        "## How this page was made",
        _provenance(table),
    ]
    return "\n\n".join(parts) + "\n"


def _finished(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [record for record in table["records"] if record["run"] is not None]


def _setting(table: dict[str, Any]) -> Iterator[str]:
    """Data and threat of the runs, as they report them."""
    settings = {
        f"{record['data']['name']}: {record['data']['train']:,} training, {record['data']['val']:,} held-out and "
        f"{record['data']['test']:,} test images; {record['run_facts']['train_epochs']} epochs; "
        f"{record['threat']['norm']} eps {record['threat']['eps']:.4g}; seed {record['run_facts']['seed']}."
        for record in _finished(table)
    }
    if settings:
        yield "\n".join(sorted(settings))


def _doubts(table: dict[str, Any]) -> Iterator[str]:
    """What speaks against figures of the table."""
    said = [
        f"- {record['label']} {record['run']}: {record['doubt']}" for record in _finished(table) if record.get("doubt")
    ]
    if said:
        yield "\n".join(["Figures marked (!) are not to be trusted:", "", *said])


def _results(table: dict[str, Any]) -> str:
    heads = ["method", *(key.split(".")[-1] for key in table["grid"])]
    for key in table["accuracy"]:
        heads += [_title(key), *(["paper"] if _printed(table) else [])]
    heads += [*(f"size ({key})" for key in table["size"]), "run time"]
    return markdown_table(heads, [_row(record, table) for record in table["records"]])


def _printed(table: dict[str, Any]) -> bool:
    """Whether a paper has a figure for any row."""
    return any(record["published"] for record in table["records"])


def _row(record: dict[str, Any], table: dict[str, Any]) -> list[str]:
    cells = [record["label"], *(f"{record['point'].get(key, '-')}" for key in table["grid"])]
    failed = record["run"] is None
    for key in table["accuracy"]:
        printed = record["published"].get(key)
        mark = DOUBT if key != "clean" and record.get("doubt") else ""
        ours = "failed" if failed else _accuracy(record["accuracy"].get(key)) + mark
        cells += [ours, *(["-" if printed is None else f"{printed:.1f}"] if _printed(table) else [])]
    cells += ["-" if failed else _size(record["size"][key]) for key in table["size"]]
    return [*cells, "-" if failed else duration(record["run_facts"]["seconds"])]


def _accuracy(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else f"{100 * entry['value']:.1f} {interval(entry['interval'])}"


def _size(entry: dict[str, Any]) -> str:
    """Real sizes in bytes with their share, counted ones as a share only."""
    return f"{byte_size(entry['bytes'])} ({share(entry['fraction'])})" if "bytes" in entry else share(entry["fraction"])


def _title(key: str) -> str:
    """clean, worst case, PGD."""
    return key.replace("_", " ") if key in ("clean", "worst_case") else key.upper()


def _claims(table: dict[str, Any]) -> Iterator[str]:
    if not table["comparisons"]:
        return
    heads = ["claim", *(key.split(".")[-1] for key in table["grid"]), "measured", "95 % interval", "p", "conclusion"]
    yield "## Claims"
    yield markdown_table(heads, [_claim(entry, table) for entry in table["comparisons"]])
    yield (
        "Two methods are compared on the same test images: the difference in points, its paired 95 % interval and "
        "McNemar's exact p. The interval covers the choice of test images, not that of the training seed."
    )


def _claim(entry: dict[str, Any], table: dict[str, Any]) -> list[str]:
    cells = [entry["claim"], *(f"{entry['point'].get(key, '-')}" for key in table["grid"])]
    if entry["estimate"] is None:
        return [*cells, "-", "-", "-", entry["conclusion"]]
    sign, unit = ("+", "points") if entry["pair"] else ("", "%")
    p_value = "-" if entry["p_value"] is None else f"{entry['p_value']:.2g}"
    measured = f"{_title(entry['metric'])} {entry['estimate']:{sign}.1f} {unit}"
    return [*cells, measured, f"[{entry['low']:{sign}.1f}, {entry['high']:{sign}.1f}]", p_value, entry["conclusion"]]


def _provenance(table: dict[str, Any]) -> str:
    """The command, and when, where and with what the runs were made."""
    command = shlex.join(["robcomp", "table", table["name"], "--scale", table["scale"], *table["extra"]])
    lines = [f"- Rebuild: `{command}`"]
    done = _finished(table)
    if done:
        dates = sorted(record["run_facts"]["finished"] for record in done)
        machines = {
            f"{machine['name']} ({machine['device']}, {machine['precision']}, torch {machine['torch']})"
            for machine in (record["run_facts"]["machine"] for record in done)
        }
        lines += [
            f"- Runs finished {dates[0][:10]}" + (f" to {dates[-1][:10]}" if dates[-1][:10] != dates[0][:10] else ""),
            f"- Machine: {'; '.join(sorted(machines))}",
            f"- robcomp {', '.join(sorted({record['robcomp'] for record in done}))}; run time "
            f"{duration(sum(record['run_facts']['seconds'] for record in done))} over {len(done)} runs",
        ]
    failed = [record for record in table["records"] if record["run"] is None]
    lines += [f"- Failed: {record['label']} (`{' '.join(record['overrides'])}`)" for record in failed]
    return "\n".join(lines)
