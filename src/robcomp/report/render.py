"""A report as text: tables on the console (rich) and the page report.md, both made of the same cells."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from robcomp.report.accuracy import MIN_VERDICT_IMAGES, Accuracy, AttackAccuracy, Proportion, Verdict
from robcomp.report.formatting import (
    byte_size,
    count,
    duration,
    interval,
    listed,
    markdown_table,
    percent,
    share,
    times,
)
from robcomp.report.schema import Report
from robcomp.report.size import Density, Macs, Size, TensorSize

Cells = list[list[str]]

COUNTED = {
    "file": "real bytes of model.rcz",
    "coded": "non-zeros x bits, codebooks; no positions",
    "nominal": "non-zeros x bits, as in the papers; no positions",
}
OPERATIONS = {
    "dense": "of the dense network",
    "executed": "carried out by robcomp, zeros included",
    "nonzero": "those with a non-zero weight",
}
KEPT = {"last": "last", "best": "best on held-out images", "best_on_test": "best on test images"}
UNSAID = ("name", "norm", "relative_step", "revision")  # said by the row's name, the header and step_size, or no matter
USUAL = (
    ("bn_mode", "eval"),
    ("random_start", True),
    ("restarts", 1),
    ("momentum", 0.0),
    ("loss", "ce"),
    ("target", ""),
)


def console(report: Report, console: Console) -> None:
    """Print the report: one header line, then accuracy, size and densities."""
    console.print(header(report), style="bold", highlight=False, markup=False)
    for title, (columns, cells) in tables(report).items():
        table = Table(
            title=title, title_justify="left", title_style="bold cyan", box=None, pad_edge=False, padding=(0, 2)
        )
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index in (0, len(columns) - 1) else "right", header_style="dim")
        for row in cells:  # as Text: a definition may hold brackets, which a plain cell would take for markup
            table.add_row(
                *map(Text, row), style="bold" if row[0].startswith("worst") or row[0] in ("file", "all") else None
            )
        console.print()
        console.print(table)
        for note in notes(title, report):
            console.print(note, style="dim", highlight=False, markup=False)
        if title == "Accuracy":
            if said := constant(report):
                console.print(said, style="bold red", highlight=False, markup=False)
            console.print(trust(report), style="bold red" if report.doubt else "", highlight=False, markup=False)


def markdown(report: Report) -> str:
    """The report as a Markdown page."""
    run = report.run
    parts = [f"# {run.dataset}, {run.model}, {run.method}", header(report)]
    for title, (columns, cells) in tables(report).items():
        parts += [f"## {title}", markdown_table(columns, cells), *notes(title, report)]
        if title == "Accuracy":
            parts += [said for said in (constant(report), trust(report)) if said]
            if report.verdict is not None:
                seen = [[_words(c.name), "flag" if c.flag else "-", c.evidence] for c in report.verdict.checks]
                parts += ["## Verdict", markdown_table(["check", "", "seen"], seen)]
        if title == "Size":
            parts.append("\n".join(f"- {note}" for note in definitions(report)))
    parts.append(f"Finished {run.finished}, robcomp {report.robcomp}, torch {run.machine.torch}.")
    return "\n\n".join(parts) + "\n"


def header(report: Report) -> str:
    """What was trained, how long and on what, in one line."""
    run, threat, machine = report.run, report.evaluated.threat, report.run.machine
    data = f"{run.dataset} ({'own images' if report.data.own else 'unofficial split or order'})"
    data = run.dataset if report.data.official else data
    method = ", ".join([run.method, *run.settings])
    trained = f"{run.train_epochs} epochs, {KEPT[run.selection]} kept | {duration(run.seconds)}"
    return (
        f"{data} / {run.model} / {method}  {run.id} | seed {run.seed} | "
        f"{trained if report.stages else 'trained elsewhere'} | "
        f"{threat.norm} eps {threat.eps:.4g} | {machine.name}, {machine.precision}"
    )


def tables(report: Report) -> dict[str, tuple[list[str], Cells]]:
    """Title -> (column heads, cells) of the tables of a report."""
    return {
        "Accuracy": (["", "accuracy", "95 % interval", "images", "seconds", "attack"], _accuracy(report)),
        "Size": (["", "size", "of dense", "smaller by", "what counts"], _size(report)),
        **(_compute(report.macs) if report.macs is not None else {}),
        "Density": (
            ["layer", "weights", "non-zero", "density", "stored as"],
            _density(report.density, report.size),
        ),
    }


def notes(title: str, report: Report) -> list[str]:
    """What a reader must know of the signs in the table `title`."""
    if title == "Accuracy" and any(entry.cumulative for entry in report.accuracy.attacks.values()):
        return ["+: on what the attacks above left (same norm, no larger eps); the worst case over them and this one"]
    stored = {tensor.name for layer in report.density.layers for tensor in layer.tensors}
    if title == "Density" and "C" in stored:
        return ["U, V, C: their non-zeros; the layer's weight is W = U V + C"]
    return []


def definitions(report: Report) -> list[str]:
    """What the three sizes count, a sentence or more each."""
    return [f"{name}: {size.definition}" for name, size in report.size.named().items()]


def constant(report: Report) -> str:
    """What there is to say of a network that gives one answer to every image, and '' of any other."""
    return constant_in(report.accuracy, [layer.name for layer in report.density.layers if not layer.nonzero])


def constant_in(accuracy: Accuracy, empty: Sequence[str]) -> str:
    """`constant`, of the accuracies and the names of the layers without a non-zero weight."""
    if accuracy.only_class is None:
        return ""
    why = f"; {listed(empty)} {'is' if len(empty) == 1 else 'are'} empty (no non-zero weight)" if empty else ""
    return f"The network answers class {accuracy.only_class} for every image{why}."


def trust(report: Report) -> str:
    """What the checks of the verdict say of the figures under attack, in a sentence or, with flags, some more."""
    return trust_in(report.verdict, report.accuracy)


def trust_in(verdict: Verdict | None, accuracy: Accuracy) -> str:
    """`trust`, of the verdict and the accuracies alone: what was tried, and what it found."""
    standard = "which is AutoAttack's standard version." if accuracy.autoattack else "AutoAttack was not run."
    tried = f"The worst case is over {listed(accuracy.tried)}; {standard}"
    if verdict is None:
        return f"Verdict: none; whether the figures under attack can be trusted was not checked. {tried}"
    seen = f"{len(verdict.checks)} check{'' if len(verdict.checks) == 1 else 's'} on {verdict.images} images"
    if not verdict.images:
        return "Verdict: no image is classified correctly without an attack, so no figure can be too high."
    if verdict.trusted is None:
        why = (
            "so few images cannot tell; evaluate on more."
            if verdict.images < MIN_VERDICT_IMAGES
            else "stronger attacks broke more than 5 % of these; look at more (attack.verdict=500), or attack harder."
        )
        return f"Verdict: undecided. {seen} raised no flag, but {why} {tried}"
    if not verdict.flags:
        return f"Verdict: no flag in {seen}. {tried}"
    said = " ".join(f"{_words(check.name)}: {check.evidence}" for check in verdict.flags)
    return f"Verdict: the figures under attack are NOT to be trusted. {said} {tried}"


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _accuracy(report: Report) -> Cells:
    norm, unused, cells = report.evaluated.threat.norm, report.accuracy.unused, []
    for name, entry in report.accuracy.entries().items():
        if name == "worst_case" and report.accuracy.worst_cases:
            continue  # it is one of those below
        mark = "" if name == "clean" else report.doubt
        head = [_row_name(name, entry, name in unused), percent(entry.value) + mark, interval(entry.interval)]
        cells.append([*head, *(_attacked(entry, norm) if isinstance(entry, AttackAccuracy) else _plain(entry))])
    for worst in report.accuracy.worst_cases:
        head = [f"worst at {worst.norm} {worst.eps:.4g}", percent(worst.value) + report.doubt, interval(worst.interval)]
        cells.append([*head, f"{worst.images:,}", "-", ", ".join(worst.attacks)])
    return cells


def _plain(entry: Proportion) -> list[str]:
    return [f"{entry.images:,}", "-", ""]


def _attacked(entry: AttackAccuracy, norm: str) -> list[str]:
    """Images, seconds, settings."""
    met = f"{entry.attacked:,} of " if entry.cumulative and entry.attacked is not None else ""
    seconds = "-" if entry.seconds is None else f"{entry.seconds:.1f}"
    return [f"{met}{entry.images:,}", seconds, _settings(entry, norm)]


def _row_name(name: str, entry: Proportion, unused: bool) -> str:
    if isinstance(entry, AttackAccuracy) and entry.cumulative:
        return f"+ {name}"
    return name.replace("_", " ") + (" (excluded)" if unused else "")


def _settings(entry: AttackAccuracy, norm: str) -> str:
    """An attack's settings that a reader compares, the usual ones and `norm` left out; report.json has them all."""
    attack = entry.attack
    shown = {key: value for key, value in attack.items() if key not in UNSAID and (key, value) not in USUAL}
    plain = {key: value for key, value in shown.items() if isinstance(value, int | float | str)}
    said = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in plain.items()]
    if attack.get("norm", norm) != norm:
        said.insert(0, attack["norm"])
    if entry.median_distance is not None:
        far = math.isinf(entry.median_distance)
        said.append("median distance " + ("infinite" if far else f"{entry.median_distance:.4g}"))
    return ", ".join(said)


def _size(report: Report) -> Cells:
    counted = COUNTED if _packed(report) else {**COUNTED, "file": "bytes of the network's state as float32"}
    return [
        [name, byte_size(entry.bytes), share(entry.fraction), times(entry.fraction), counted[name]]
        for name, entry in report.size.named().items()
    ]


def _packed(report: Report) -> bool:
    """False for an architecture of the user's own, of which no model.rcz was made."""
    stored = (tensor.bytes for layer in report.density.layers for tensor in layer.tensors)
    return report.run.method != "external" or any(size is not None for size in stored)


def _compute(macs: Macs) -> dict[str, tuple[list[str], Cells]]:
    found = {"dense": macs.dense, "executed": macs.executed, "nonzero": macs.nonzero}
    cells = [[kind, count(number), share(number / macs.dense), OPERATIONS[kind]] for kind, number in found.items()]
    return {"Compute": (["", "MACs an image", "of dense", "what counts"], cells)}


def _density(density: Density, size: Size) -> Cells:
    cells = []
    for layer in density.layers:
        counts = [f"{layer.weights:,}", f"{layer.nonzero:,}", share(layer.density)]
        # a rank says the sizes of U and V too
        stored = [f"U V of rank {layer.rank}"] if layer.rank else [_tensor(tensor) for tensor in layer.tensors]
        missing = [_present("filters", layer.filters), _present("channels", layer.channels)]
        cells.append([layer.name, *counts, ", ".join(filter(None, [*stored, *missing]))])
    total = [f"{size.dense_weights:,}", f"{size.nonzero:,}", share(density.total)]
    channels = _present("convolution channels", density.channels)
    return [*cells, ["all", *total, ", ".join(filter(None, [f"{size.bits} bits a weight", channels]))]]


def _present(name: str, counts: list[int] | None) -> str:
    """'48 of 64 channels' where some are gone, else nothing."""
    return f"{counts[0]:,} of {counts[1]:,} {name}" if counts and counts[0] < counts[1] else ""


def _tensor(tensor: TensorSize) -> str:
    if tensor.name == "weight":
        return "x".join(str(length) for length in tensor.shape)
    return f"{tensor.name} {tensor.nonzero:,}"
