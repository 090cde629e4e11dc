"""Numbers and tables as text, the same on the console, in Markdown and in CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; the first column is aligned to the left, the others to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if index else "left", header_style="dim")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print()
    console.print(Text(title, "bold cyan"))  # not the table's own title, which would fold where the table is narrow
    console.print(table)


def markdown_table(columns: Iterable[str], cells: Iterable[Iterable[str]], numbers: bool = True) -> str:
    """A Markdown table; the first column is aligned to the left, the others too unless they hold numbers."""
    columns = list(columns)
    rules = [":--", *["--:" if numbers else ":--"] * (len(columns) - 1)]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, rules, *rows])


def listed(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([part for part in (", ".join(words[:-1]), *words[-1:]) if part])


def percent(fraction: float) -> str:
    """0.9701 -> '97.0 %'."""
    return f"{100 * fraction:.1f} %"


def interval(bounds: Iterable[float]) -> str:
    """[0.966, 0.973] -> '[96.6, 97.3]', in percent."""
    return f"[{', '.join(f'{100 * bound:.1f}' for bound in bounds)}]"


def share(fraction: float) -> str:
    """A fraction in percent with two significant digits below 10 %: one decimal would turn 0.037 % into 0.0 %."""
    value = 100 * fraction
    return f"{value:.1f} %" if value >= 10 or value == 0 else f"{value:.2g} %"


def times(fraction: float) -> str:
    """How many times smaller a size of `fraction` is: 1,188x, 2.6x; without bound where nothing is left."""
    if fraction <= 0:
        return "infinitely"
    return f"{1 / fraction:,.0f}x" if fraction < 0.1 else f"{1 / fraction:.1f}x"


def count(number: float) -> str:
    """A large count: 1.6 E, 556.7 M, 12.4 k, 645."""
    for unit, scale in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f}"


def byte_size(size: float) -> str:
    """Bytes in a unit that a person reads: 645 B, 2.4 kB, 1.7 MB (powers of ten)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} B"


def duration(seconds: float) -> str:
    """Seconds as 41 s, 13 min 32 s, 2 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def as_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of the same keys as CSV with a head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
