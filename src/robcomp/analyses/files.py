"""The files of a result, and runs as their reports name them, for analyses that need neither network nor images."""

import csv
import datetime
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

import robcomp
from robcomp import storage
from robcomp.errors import UserError
from robcomp.report import schema
from robcomp.report.render import doubt


@dataclass(frozen=True, eq=False)
class Reported:
    """A finished run by its checked report alone; `label` names its data set too, as runs of several may meet here."""

    folder: Path
    label: str
    report: dict[str, Any]

    def head(self) -> dict[str, Any]:
        """The run in a result's JSON."""
        run = {key: self.report["run"][key] for key in ("id", "dataset", "model", "method")}
        return {"label": self.label, "folder": str(self.folder), **run}


def read_all(folders: Sequence[Path]) -> list[Reported]:
    """The runs in `folders`; those that would be called the same are called by their folders."""
    reports = [schema.read(folder / "report.json") for folder in folders]
    labels = [_label(report) for report in reports]
    used = Counter(labels)
    return [
        Reported(folder, label if used[label] == 1 else str(folder), report)
        for folder, label, report in zip(folders, labels, reports, strict=True)
    ]


def _label(report: dict[str, Any]) -> str:
    run = report["run"]
    return f"{run['dataset']} {run['model']} {run['method']} {run['id'][:6]}{doubt(report)}"


def write(
    kind: str,
    identity: object,
    folder: Path,
    result: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    draw: Callable[[dict[str, Any], Path], None],
    console: Console,
) -> Path:
    """Write <name>-<digest of `identity`>.json, .csv and, with matplotlib, .png into `folder`; returns the JSON's path.

    `kind`: the result's schema, robcomp-<name>/1. The files are written anew each time: that takes no longer than a
    look at the old ones. `draw` takes the JSON's content.
    """
    stem = folder / f"{kind.removeprefix('robcomp-').split('/')[0]}-{storage.digest([kind, identity])}"
    finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    result = {"schema": kind, "robcomp": robcomp.__version__, "finished": finished, **result}
    page, table, figure = (stem.with_suffix(suffix) for suffix in (".json", ".csv", ".png"))
    storage.write_json(page, result)
    storage.write_text(table, as_csv(rows))
    figure.unlink(missing_ok=True)
    complete(page, lambda path: draw(result, path), console)
    return page


def complete(page: Path, draw: Callable[[Path], None], console: Console) -> None:
    """Draw the figure beside the JSON `page` where it is missing, and say what lies there."""
    if not (figure := page.with_suffix(".png")).exists():
        try:
            draw(figure)
        except UserError as error:
            console.print(f"no figure: {error}", markup=False, highlight=False)
    files = " ".join(suffix for suffix in (".csv", ".png") if page.with_suffix(suffix).exists())
    console.print(f"result: {page} (and {files})", markup=False, highlight=False)


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of the same keys as CSV with a head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
