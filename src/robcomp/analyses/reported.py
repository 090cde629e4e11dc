"""Runs as their reports name them, for analyses that need neither network nor images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robcomp.report.schema import Report


@dataclass(frozen=True, eq=False)
class Reported:
    """A finished run by its checked report alone; `label` names its data set too, as runs of several may meet here."""

    folder: Path
    label: str
    report: Report

    def head(self) -> dict[str, Any]:
        """The fields of `NamedRun`."""
        run = self.report.run
        place = {"label": self.label, "folder": str(self.folder)}
        return place | {"id": run.id, "dataset": run.dataset, "model": run.model, "method": run.method}


def read_all(folders: Sequence[Path]) -> list[Reported]:
    """The runs in `folders`; those that would be called the same are called by their folders."""
    reports = [Report.read(folder / "report.json") for folder in folders]
    labels = [_label(report) for report in reports]
    used = Counter(labels)
    return [
        Reported(folder, label if used[label] == 1 else str(folder), report)
        for folder, label, report in zip(folders, labels, reports, strict=True)
    ]


def _label(report: Report) -> str:
    run = report.run
    return f"{run.dataset} {run.model} {run.method} {run.id[:6]}{report.doubt}"
