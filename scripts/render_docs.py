#!/usr/bin/env python3
"""Write the tables of keys in docs/report.md from the dataclasses that the files are made of.

A table stands between `<!-- keys: PLACE = CLASS -->` and `<!-- end -->`. PLACE is where the record stands in the file
(empty for the file itself); without its bases' keys where the class is written as `CLASS alone`, and without those of
the records in it where it is written as `CLASS flat`.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from robcomp.report import records, results, schema
from robcomp.report.formatting import markdown_table

PAGE = Path(__file__).parents[1] / "docs" / "report.md"
TABLE = re.compile(r"(<!-- keys: (\S*) ?= (\w+)( alone| flat)? -->\n)(.*?)(<!-- end -->)", re.S)


def main() -> None:
    """Render the page in place, or with --check exit with 1 where it is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    if args.check:
        raise SystemExit(int(rendered(text) != text))
    PAGE.write_text(rendered(text), encoding="utf-8")
    print(PAGE)


def rendered(text: str) -> str:
    """The page with every table of keys as the dataclasses have it."""

    def fill(found: re.Match[str]) -> str:
        head, place, name, part, _, end = found.groups()
        kind = getattr(schema, name, None) or getattr(results, name)
        rows = [[f"`{path}`", said] for path, said in _keys(kind, place, (part or "").strip())]
        return f"{head}\n{markdown_table(['key', 'meaning'], rows, numbers=False)}\n\n{end}"

    return TABLE.sub(fill, text)


def _keys(kind: type, place: str, part: str) -> Iterator[tuple[str, str]]:
    prefix = f"{place}." if place else ""
    inherited = {f.name for base in kind.__bases__ if hasattr(base, "__dataclass_fields__") for f in fields(base)}
    for path, said in records.keys(kind):
        name = re.split(r"[\[.?]", path)[0]
        if (part == "alone" and name in inherited) or (part == "flat" and path.rstrip("?") != name):
            continue
        yield prefix + path, said


if __name__ == "__main__":
    main()
