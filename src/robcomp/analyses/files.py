"""The files of an analysis, written here alone: JSON, CSV and, with matplotlib, a figure."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from robcomp import storage
from robcomp.errors import UserError
from robcomp.report.formatting import as_csv
from robcomp.report.records import Document
from robcomp.report.terminal import say

Rows = Sequence[Mapping[str, object]]


def stem(kind: type[Document], folder: Path, *identity: object) -> Path:
    """<folder>/<name>-<digest of `identity`>, what the files of a result of this kind are called but for their ends."""
    name = kind.SCHEMA.removeprefix("robcomp-").split("/")[0]
    return folder / f"{name}-{storage.digest([kind.SCHEMA, *identity])}"


def write(page: Path, result: Document) -> None:
    """Write the JSON file `page`, which holds all that the other files show; those of a former result go."""
    for suffix in (".csv", ".png"):
        page.with_suffix(suffix).unlink(missing_ok=True)
    result.write(page)


def complete(page: Path, rows: Rows, draw: Callable[[Path], None], console: Console) -> Path:
    """Write the table `rows` and the figure beside `page` where they are missing, and say what lies there."""
    if not (table := page.with_suffix(".csv")).exists():
        storage.write_text(table, as_csv(rows))
    if not (figure := page.with_suffix(".png")).exists():
        try:
            draw(figure)
        except UserError as error:
            say(console, f"no figure: {error}")
    files = " ".join(suffix for suffix in (".csv", ".png") if page.with_suffix(suffix).exists())
    say(console, f"result: {page} (and {files})")
    return page
