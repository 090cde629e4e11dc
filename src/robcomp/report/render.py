"""A report as text: tables on the console (rich) and the page report.md, both made of the same cells."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from robcomp.report.formatting import byte_size, count, duration, interval, markdown_table, percent, share, times
from robcomp.report.schema import doubt, threat_of

Cells = list[list[str]]

COUNTED = {"a": "non-zeros x bits, as in the papers", "b": "(a) and codebooks", "c": "real bytes of model.rcz"}
OPERATIONS = {
    "dense": "of the dense network",
    "executed": "as computed here, zeros multiplied too",
    "nonzero": "of these, with a non-zero weight",
}
UNSAID = ("name", "norm", "relative_step", "revision")  # said by the row's name, the header and step_size, or no matter
USUAL = (
    ("bn_mode", "eval"),
    ("random_start", True),
    ("restarts", 1),
    ("momentum", 0.0),
    ("loss", "ce"),
    ("target", ""),
)


def console(report: dict[str, Any], console: Console) -> None:
    """Print the report: one header line, then accuracy, size and densities."""
    console.print(header(report), style="bold", highlight=False, markup=False)
    for title, (columns, cells) in tables(report).items():
        table = Table(
            title=title, title_justify="left", title_style="bold cyan", box=None, pad_edge=False, padding=(0, 2)
        )
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index in (0, len(columns) - 1) else "right", header_style="dim")
        for row in cells:  # as Text: a definition may hold brackets, which a plain cell would take for markup
            table.add_row(*map(Text, row), style="bold" if row[0] in ("worst case", "(c)", "all") else None)
        console.print()
        console.print(table)
        if title == "Accuracy":
            console.print(trust(report), style="bold red" if doubt(report) else "", highlight=False, markup=False)


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown page."""
    run = report["run"]
    parts = [f"# {run['dataset']}, {run['model']}, {run['method']}", header(report)]
    for title, (columns, cells) in tables(report).items():
        parts += [f"## {title}", markdown_table(columns, cells)]
        if title == "Accuracy":
            parts.append(trust(report))
            if "verdict" in report:
                cells = [
                    [_words(c["name"]), "flag" if c["flag"] else "-", c["evidence"]]
                    for c in report["verdict"]["checks"]
                ]
                parts += ["## Verdict", markdown_table(["check", "", "seen"], cells)]
        if title == "Size":
            parts.append("\n".join(f"- {note}" for note in definitions(report)))
    parts.append(f"Finished {run['finished']}, robcomp {report['robcomp']}, torch {run['machine']['torch']}.")
    return "\n\n".join(parts) + "\n"


def header(report: dict[str, Any]) -> str:
    """What was trained, how long and on what, in one line."""
    run, threat, machine = report["run"], threat_of(report), report["run"]["machine"]
    data = f"{run['dataset']} ({'own images' if report['data'].get('own') else 'unofficial split or order'})"
    data = run["dataset"] if report["data"]["official"] else data
    method = ", ".join([run["method"], *run.get("settings", [])])
    return (
        f"{data} / {run['model']} / {method}  {run['id']} | seed {run['seed']} | "
        f"{run['train_epochs']} epochs ({run['selection']}) | {duration(run['seconds'])} | "
        f"{threat['norm']} eps {threat['eps']:.4g} | {machine['name']}, {machine['precision']}"
    )


def tables(report: dict[str, Any]) -> dict[str, tuple[list[str], Cells]]:
    """Title -> (column heads, cells) of the tables of a report."""
    return {
        "Accuracy": (["", "accuracy", "95 % interval", "images", "seconds", "attack"], _accuracy(report)),
        "Size": (["", "size", "of dense", "smaller by", "what counts"], _size(report["size"])),
        **(_compute(report["macs"]) if "macs" in report else {}),
        "Density": (
            ["layer", "weights", "non-zero", "density", "stored as"],
            _density(report["density"], report["size"]),
        ),
    }


def definitions(report: dict[str, Any]) -> list[str]:
    """What the three sizes count, a sentence or more each."""
    return [f"({name}) {report['size'][name]['definition']}" for name in ("a", "b", "c")]


def trust(report: dict[str, Any]) -> str:
    """What the checks of the verdict say of the figures under attack, in a sentence or, with flags, some more."""
    verdict = report.get("verdict")
    if verdict is None:
        return "Verdict: none; whether the figures under attack can be trusted was not checked."
    flags = [check for check in verdict["checks"] if check["flag"]]
    seen = f"{len(verdict['checks'])} checks on {verdict['images']} images"
    if verdict["trusted"] is None:
        return f"Verdict: open. {seen} saw nothing, but so few images cannot tell; evaluate on more."
    if not flags:
        return f"Verdict: no sign that the figures under attack are too high ({seen})."
    said = " ".join(f"{_words(check['name'])}: {check['evidence']}" for check in flags)
    return f"Verdict: the figures under attack are NOT to be trusted. {said}"


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _accuracy(report: dict[str, Any]) -> Cells:
    accuracy = report["accuracy"]
    attacks = [name for name in accuracy if name not in ("clean", "worst_case")]
    cells = []
    for name in ("clean", *attacks, "worst_case"):
        entry = accuracy[name]
        seconds = f"{entry['seconds']:.1f}" if "seconds" in entry else "-"
        mark = "" if name == "clean" else doubt(report)
        row = [_row_name(name, entry), percent(entry["value"]) + mark, interval(entry["interval"])]
        said = _settings(entry, threat_of(report)["norm"])
        attacked = f"{entry['attacked']:,} of " if entry.get("cumulative") else ""
        cells.append([*row, f"{attacked}{entry['images']:,}", seconds, said])
    return cells


def _row_name(name: str, entry: dict[str, Any]) -> str:
    note = "+" if entry.get("cumulative") else " (excluded)" if entry.get("excluded") else ""
    return f"+ {name}" if note == "+" else name.replace("_", " ") + note


def _settings(entry: dict[str, Any], norm: str) -> str:
    """An attack's settings that a reader compares, the usual ones and `norm` left out; report.json has them all."""
    attack = entry.get("attack", {})
    shown = {key: value for key, value in attack.items() if key not in UNSAID and (key, value) not in USUAL}
    plain = {key: value for key, value in shown.items() if isinstance(value, int | float | str)}
    said = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in plain.items()]
    if attack.get("norm", norm) != norm:
        said.insert(0, attack["norm"])
    if "median_distance" in entry:
        median = entry["median_distance"]
        said.append("median distance " + ("infinite" if median is None else f"{median:.4g}"))
    return ", ".join(said)


def _size(size: dict[str, Any]) -> Cells:
    cells = []
    for name, what in COUNTED.items():
        entry = size[name]
        stored = entry["bytes"] if "bytes" in entry else entry["bits"] / 8
        cells.append([f"({name})", byte_size(stored), share(entry["fraction"]), times(entry["fraction"]), what])
    return cells


def _compute(macs: dict[str, Any]) -> dict[str, tuple[list[str], Cells]]:
    cells = [[kind, count(macs[kind]), share(macs[kind] / macs["dense"]), what] for kind, what in OPERATIONS.items()]
    return {"Compute": (["", "MACs an image", "of dense", "what counts"], cells)}


def _density(density: dict[str, Any], size: dict[str, Any]) -> Cells:
    cells = []
    for layer in density["layers"]:
        counts = [f"{layer['weights']:,}", f"{layer['nonzero']:,}", share(layer["density"])]
        rank = layer.get("rank")  # says the sizes of U and V too
        stored = [f"U V of rank {rank}"] if rank else [_tensor(tensor) for tensor in layer["tensors"]]
        missing = [_present(name, layer.get(key)) for name, key in (("filters", "filters"), ("channels", "channels"))]
        cells.append([layer["name"], *counts, ", ".join(filter(None, [*stored, *missing]))])
    total = [f"{size['dense_weights']:,}", f"{size['nonzero']:,}", share(density["total"])]
    channels = _present("convolution channels", density.get("channels"))
    return [*cells, ["all", *total, ", ".join(filter(None, [f"{size['bits']} bits a weight", channels]))]]


def _present(name: str, counts: list[int] | None) -> str:
    """'48 of 64 channels' where some are gone, else nothing."""
    return f"{counts[0]:,} of {counts[1]:,} {name}" if counts and counts[0] < counts[1] else ""


def _tensor(tensor: dict[str, Any]) -> str:
    if tensor["name"] == "weight":
        return "x".join(str(length) for length in tensor["shape"])
    return f"{tensor['name']} {tensor['nonzero']:,}"
