"""The files of an analysis: JSON, CSV and, with matplotlib, a figure."""

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import robcomp
from robcomp import storage
from robcomp.errors import UserError
from robcomp.report.formatting import as_csv


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
