#!/usr/bin/env python3
"""Write the tables of keys in docs/report.md and the list of inferred settings in docs/published-settings.md.

The list is made of the comments `# inferred: KEY, KEY - reason` in conf/ and src/, the tables of the dataclasses that
the files are made of. A table stands between `<!-- keys: PLACE = CLASS -->` and `<!-- end -->`. PLACE is where the
record stands in the file (empty for the file itself); without its bases' keys where the class is written as `CLASS
alone`, and without those of the records in it where it is written as `CLASS flat`.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from robcomp.report import accuracy, records, results, schema, size
from robcomp.report.formatting import markdown_table

TOP = Path(__file__).parents[1]
PAGE, SETTINGS = TOP / "docs" / "report.md", TOP / "docs" / "published-settings.md"
TABLE = re.compile(r"(<!-- keys: (\S*) ?= (\w+)( alone| flat)? -->\n)(.*?)(<!-- end -->)", re.S)
INFERRED = re.compile(r"# inferred: (.+?) - (.+)")
LIST = re.compile(r"(<!-- inferred -->\n)(.*?)(<!-- end -->)", re.S)


def main() -> None:
    """Render the pages in place, or with --check exit with 1 where one is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    pages = {page: render(page.read_text(encoding="utf-8")) for page, render in RENDERED.items()}
    if args.check:
        raise SystemExit(int(any(page.read_text(encoding="utf-8") != text for page, text in pages.items())))
    for page, text in pages.items():
        page.write_text(text, encoding="utf-8")
        print(page)


def rendered(text: str) -> str:
    """The page with every table of keys as the dataclasses have it."""

    def fill(found: re.Match[str]) -> str:
        head, place, name, part, _, end = found.groups()
        kind = next(getattr(module, name) for module in (schema, accuracy, size, results) if hasattr(module, name))
        rows = [[f"`{path}`", said] for path, said in _keys(kind, place, (part or "").strip())]
        return f"{head}\n{markdown_table(['key', 'meaning'], rows, numbers=False)}\n\n{end}"

    return TABLE.sub(fill, text)


def listed(text: str) -> str:
    """The page with the list of inferred settings as the comments have it."""
    rows = [
        [f"[{path}](../{path})", ", ".join(f"`{key}`" for key in keys), reason] for path, keys, reason in inferred()
    ]
    table = markdown_table(["file", "settings", "why this value"], rows, numbers=False)
    return LIST.sub(lambda found: f"{found[1]}\n{table}\n\n{found[3]}", text)


def inferred() -> Iterator[tuple[str, list[str], str]]:
    """(file, settings, reason) of each comment that marks settings that no source gives."""
    for path in sorted([*TOP.glob("conf/**/*.yaml"), *TOP.glob("src/**/*.py")]):
        for found in INFERRED.finditer(path.read_text(encoding="utf-8")):
            yield path.relative_to(TOP).as_posix(), found[1].split(", "), found[2]


def _keys(kind: type, place: str, part: str) -> Iterator[tuple[str, str]]:
    prefix = f"{place}." if place else ""
    inherited = {f.name for base in kind.__bases__ if hasattr(base, "__dataclass_fields__") for f in fields(base)}
    for path, said in records.keys(kind):
        name = re.split(r"[\[.?]", path)[0]
        if (part == "alone" and name in inherited) or (part == "flat" and path.rstrip("?") != name):
            continue
        yield prefix + path, said


RENDERED = {PAGE: rendered, SETTINGS: listed}

if __name__ == "__main__":
    main()
