"""A table of a protocol on the console."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; the first column stands left, the others right."""
    table = Table(title=title, title_justify="left", title_style="bold cyan", box=None, pad_edge=False, padding=(0, 2))
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if index else "left", header_style="dim")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print()
    console.print(table)
