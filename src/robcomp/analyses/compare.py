"""Two finished runs, image by image on the same test images: does one withstand more, and how sure is that?

Without torch: all is read from the reports and from the outcomes that stand beside them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from robcomp.errors import UserError
from robcomp.evaluation.statistics import paired_difference
from robcomp.report import schema
from robcomp.report.formatting import byte_size, print_table, share
from robcomp.report.schema import doubt, threat_of

SCHEMA = "robcomp-compare/2"
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Evaluated:
    """An evaluation: its checked report and, under the accuracies' keys, which images were correct (bool [N])."""

    path: Path
    report: dict[str, Any]
    outcomes: dict[str, np.ndarray]

    @property
    def data(self) -> dict[str, Any]:
        """The images that were evaluated: those of the later evaluation, where the report is of one."""
        return self.report.get("evaluation", self.report)["data"]

    @property
    def attacks(self) -> dict[str, dict[str, Any]]:
        """The settings of each attack."""
        return {name: entry["attack"] for name, entry in self.report["accuracy"].items() if "attack" in entry}

    @property
    def suite(self) -> dict[str, dict[str, Any]]:
        """The settings of the attacks that the worst case is over."""
        excluded = {name for name, entry in self.report["accuracy"].items() if entry.get("excluded")}
        return {name: settings for name, settings in self.attacks.items() if name not in excluded}

    @property
    def label(self) -> str:
        """What was run, and where it lies."""
        run = self.report["run"]
        return f"{run['dataset']} {run['model']} {run['method']}, {self.path}{doubt(self.report)}"


def read(path: Path) -> Evaluated:
    """The evaluation in a run directory, or in a report.json or evaluation-*.json of one."""
    page = path / "report.json" if path.is_dir() else path
    report = schema.read(page)
    beside = page.with_name("outcomes.npz") if page.name == "report.json" else page.with_suffix(".npz")
    if not beside.is_file():
        raise UserError(f"no outcomes at {beside}; keep them beside {page.name}, or run the evaluation again.")
    with np.load(beside) as arrays:
        outcomes = {name: arrays[name].astype(bool) for name in arrays.files if "." not in name}
    return Evaluated(path, report, outcomes)


def compare(a: Path, b: Path) -> dict[str, Any]:
    """A paired comparison for clean images, the worst case and each attack of both; JSON-able (SCHEMA).

    Each entry has the accuracies and the paired difference a - b (fractions), or the reason why there is none.
    """
    first, second = read(a), read(b)
    _same_images(first, second)
    names = [name for name in first.report["accuracy"] if name in second.report["accuracy"]]
    names.sort(key=lambda name: (name != "clean", name == "worst_case"))  # clean first, the worst case last
    entries = {}
    for name in names:
        reason = _obstacle(name, first, second)
        entries[name] = {"not_comparable": reason} if reason else _paired(name, first, second)
    return {
        "schema": SCHEMA,
        **{key: _side(side) for key, side in (("a", first), ("b", second))},
        "images": first.data["test"],
        "checksum": first.data["checksum"],
        "accuracy": entries,
        **{
            f"only_{key}": sorted(ours.attacks.keys() - theirs.attacks.keys())
            for key, ours, theirs in (("a", first, second), ("b", second, first))
        },
    }


def show(result: dict[str, Any], console: Console, as_json: bool) -> None:
    """Print a comparison: a table, what could not be compared, a conclusion for each figure, the sizes."""
    if as_json:
        print(json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False))
        return
    for key in ("a", "b"):
        console.print(f"{key.upper()}: {result[key]['label']}", style="bold", markup=False, highlight=False)
    columns = ["", "A", "B", "A - B [95 % interval]", "p", "only A / B"]
    compared = {name: entry for name, entry in result["accuracy"].items() if "paired" in entry}
    print_table(
        console,
        f"Correct on the same {result['images']:,} images, in %; p by McNemar",
        columns,
        [_line(*item) for item in compared.items()],
    )
    for name, entry in result["accuracy"].items():
        said = entry["conclusion"] if name in compared else f"not comparable: {entry['not_comparable']}"
        console.print(f"{name.replace('_', ' ')}: {said}", markup=False, highlight=False)
    for key in ("a", "b"):
        if only := result[f"only_{key}"]:
            console.print(f"only in {key.upper()}: {', '.join(only)}", markup=False, highlight=False)
    console.print(_sizes(result), markup=False, highlight=False)


def _same_images(a: Evaluated, b: Evaluated) -> None:
    """UserError unless both were evaluated on the same images: of the same data, as many of the test set's order."""
    if a.data["checksum"] != b.data["checksum"]:
        raise UserError(
            f"{a.path} is of {a.data['name']} and {b.path} of {b.data['name']}, of other content; compare runs on the "
            "same data."
        )
    counts = {len(outcome) for side in (a, b) for outcome in side.outcomes.values()}
    if a.data["test"] != b.data["test"] or counts != {a.data["test"]}:
        raise UserError(
            f"{a.path} was evaluated on {a.data['test']} test images and {b.path} on {b.data['test']}; evaluate both "
            "on the same (dataset.test_subset=N) and give the two evaluation-*.json."
        )


def _obstacle(name: str, a: Evaluated, b: Evaluated) -> str:
    """Why the figures `name` mean different things; empty where they can be compared."""
    ours, theirs = (side.report["accuracy"][name] for side in (a, b))
    if name not in a.outcomes or name not in b.outcomes:
        return "outcomes are missing"
    if ours.get("attack") != theirs.get("attack"):
        return "settings differ"
    cumulative = [bool(entry.get("cumulative")) for entry in (ours, theirs)]
    if cumulative[0] != cumulative[1]:
        return "one is of a cumulative suite, where only images that survived other attacks are attacked"
    if (name == "worst_case" or cumulative[0]) and [*a.suite.items()] != [*b.suite.items()]:
        return "the attacks of the two suites differ"
    return ""


def _paired(name: str, a: Evaluated, b: Evaluated) -> dict[str, Any]:
    mark = "" if name == "clean" else doubt(a.report) or doubt(b.report)
    paired = paired_difference(a.outcomes[name], b.outcomes[name], LEVEL)
    return {
        **{key: side.report["accuracy"][name]["value"] for key, side in (("a", a), ("b", b))},
        "paired": paired,
        "conclusion": conclusion(paired["low"], paired["high"], "accurate" if name == "clean" else "robust") + mark,
    }


def conclusion(low: float, high: float, what: str) -> str:
    """What the interval of the difference a - b says, in words."""
    if low > 0 or high < 0:
        return f"{'A' if low > 0 else 'B'} is more {what}"
    return f"no difference shown at {100 * LEVEL:.0f} %"


def _side(side: Evaluated) -> dict[str, Any]:
    size = side.report["size"]
    return {
        "path": str(side.path),
        "label": side.label,
        "run": side.report["run"]["id"],
        "threat": threat_of(side.report),
        "size": {
            "a": {"bits": size["a"]["bits"], "fraction": size["a"]["fraction"]},
            "c": {"bytes": size["c"]["bytes"], "fraction": size["c"]["fraction"]},
        },
    }


def _line(name: str, entry: dict[str, Any]) -> list[str]:
    paired = entry["paired"]
    points = f"{100 * paired['difference']:+.1f} [{100 * paired['low']:+.1f}, {100 * paired['high']:+.1f}]"
    only = f"{paired['only_a']:,} / {paired['only_b']:,}"
    return [
        name.replace("_", " "),
        f"{100 * entry['a']:.1f}",
        f"{100 * entry['b']:.1f}",
        points,
        f"{paired['p_value']:.2g}",
        only,
    ]


def _sizes(result: dict[str, Any]) -> str:
    """Sizes (a) and (c) of both in a line."""

    def both(key: str, stored: Any) -> str:
        sizes = [result[side]["size"][key] for side in ("a", "b")]
        return ", ".join(
            f"{side} {byte_size(stored(size))} ({share(size['fraction'])} of dense)"
            for side, size in zip("AB", sizes, strict=True)
        )

    return f"size (a): {both('a', lambda size: size['bits'] / 8)}; size (c): {both('c', lambda size: size['bytes'])}"
