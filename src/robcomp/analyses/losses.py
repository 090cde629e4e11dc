"""The adversarial loss of finished runs over the epochs of all their stages.

Source: figures 4.3 and 4.4 of the thesis. The loss is the mean cross-entropy on the adversarial images of an epoch's
training batches, as log.jsonl has it; natural stages have none and leave a gap. Without torch: all is read from logs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from rich.console import Console

from robcomp import storage
from robcomp.analyses import files, reported
from robcomp.errors import UserError
from robcomp.figures.losses import losses as figure
from robcomp.report.formatting import print_table
from robcomp.report.log import Event, epochs
from robcomp.report.records import now
from robcomp.report.results import EpochLosses, LossesResult, RunLosses, StageEpochs

KEYS = ("loss", "adversarial_loss", "clean", "robust", "val_clean", "val_robust", "lr")


def losses(folders: Sequence[Path], out: Path | None, console: Console) -> Path:
    """Read, write and print the adversarial losses of the runs; returns the JSON's path.

    Runs without any are left out with a remark; UserError where no run has one.
    """
    runs = reported.read_all(folders)
    logs = [epochs(run.folder / "log.jsonl") for run in runs]
    told = [any(event.get("adversarial_loss") is not None for event in events) for events in logs]
    if not any(told):
        raise UserError(
            f"no adversarial loss in the log of {', '.join(str(run.folder) for run in runs)}: natural training has "
            "none, nor have logs of older versions; give runs that were trained adversarially (method=da)."
        )
    left_out = [run.label for run, has in zip(runs, told, strict=True) if not has]
    drawn = [(run, events) for run, events, has in zip(runs, logs, told, strict=True) if has]
    lines = [RunLosses(**run.head(), stages=stages(events), epochs=_epochs(events)) for run, events in drawn]
    result = LossesResult.make(finished=now(), runs=lines, left_out=left_out)
    _show(result, console)
    identity = [storage.file_digest(run.folder / "log.jsonl") for run in runs]
    page = files.stem(LossesResult, out or folders[0], identity).with_suffix(".json")
    files.write(page, result)
    return files.complete(page, list(_rows(result)), lambda path: figure(result, path), console)


def stages(events: Sequence[Event]) -> list[StageEpochs]:
    """The stages in order, each with its number of finished epochs."""
    parts = groupby(event["stage"] for event in events)
    return [StageEpochs(name=name, epochs=len(list(part))) for name, part in parts]


def _epochs(events: Sequence[Event]) -> list[EpochLosses]:
    """Of each epoch its stage, its number there, and `KEYS`, None where the log has none."""
    return [
        EpochLosses(stage=event["stage"], epoch=event["epoch"], **{key: event.get(key) for key in KEYS})
        for event in events
    ]


def _rows(result: LossesResult) -> Iterator[dict[str, object]]:
    for run in result.runs:
        for epoch in run.epochs:
            yield {"run": run.label} | asdict(epoch)


def _show(result: LossesResult, console: Console) -> None:
    rows = [row for run in result.runs for row in _lines(run)]
    print_table(console, "Adversarial loss", ["run", "stage", "epochs", "first", "lowest", "last"], rows)
    for label in result.left_out:
        console.print(f"{label} is left out: its log has no adversarial loss", markup=False, highlight=False)


def _lines(run: RunLosses) -> Iterator[list[str]]:
    """A line of the table for each stage: its first, lowest and last adversarial loss."""
    start = 0
    for stage in run.stages:
        part = run.epochs[start : start + stage.epochs]
        start += stage.epochs
        values = [epoch.adversarial_loss for epoch in part if epoch.adversarial_loss is not None]
        shown = [f"{value:.4g}" for value in (values[0], min(values), values[-1])] if values else ["-"] * 3
        yield [run.label, stage.name, str(stage.epochs), *shown]
