"""Two finished runs, image by image on the same test images: does one withstand more, and how sure is that?

Without torch: all is read from the reports and from the outcomes that stand beside them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from robcomp.errors import UserError
from robcomp.evaluation.statistics import paired_difference
from robcomp.report.accuracy import AttackAccuracy, Settings
from robcomp.report.formatting import byte_size, print_table, share
from robcomp.report.results import ComparedAccuracy, ComparedRun, CompareResult, PairedDifference, SizeShare
from robcomp.report.schema import DataFacts, Report
from robcomp.report.terminal import say

LEVEL = 0.95
SIZES = ("file", "nominal")


@dataclass(frozen=True, eq=False)
class Evaluated:
    """An evaluation: its checked report and, under the accuracies' names, which images were correct (bool [N])."""

    path: Path
    report: Report
    outcomes: dict[str, np.ndarray]

    @property
    def data(self) -> DataFacts:
        """The images that were evaluated: those of the later evaluation, where the report is of one."""
        return self.report.evaluated.data

    @property
    def suite(self) -> list[tuple[str, Settings]]:
        """The settings of the attacks that the worst case is over, in their order."""
        return [(name, entry.attack) for name, entry in self.report.accuracy.attacks.items() if not entry.excluded]

    @property
    def label(self) -> str:
        """What was run, and where it lies."""
        run = self.report.run
        return f"{run.dataset} {run.model} {run.method}, {self.path}{self.report.doubt}"


def read(path: Path) -> Evaluated:
    """The evaluation in a run directory, or in a report.json or evaluation-*.json of one."""
    page = path / "report.json" if path.is_dir() else path
    report = Report.read(page)
    beside = page.with_name("outcomes.npz") if page.name == "report.json" else page.with_suffix(".npz")
    if not beside.is_file():
        raise UserError(f"no outcomes at {beside}; keep them beside {page.name}, or run the evaluation again.")
    with np.load(beside) as arrays:
        outcomes = {name: arrays[name].astype(bool) for name in arrays.files if "." not in name}
    return Evaluated(path, report, outcomes)


def compare(a: Path, b: Path) -> CompareResult:
    """A paired comparison for clean images, the worst case and each attack of both."""
    first, second = read(a), read(b)
    _same_images(first, second)
    names = [name for name in first.report.accuracy.entries() if name in second.report.accuracy]
    entries = {}
    for name in names:
        reason = _obstacle(name, first, second)
        entries[name] = ComparedAccuracy(not_comparable=reason) if reason else _paired(name, first, second)
    ours, theirs = (side.report.accuracy.attacks.keys() for side in (first, second))
    return CompareResult.make(
        a=_side(first),
        b=_side(second),
        images=first.data.test,
        checksum=first.data.checksum,
        accuracy=entries,
        only_a=sorted(ours - theirs),
        only_b=sorted(theirs - ours),
    )


def show(result: CompareResult, console: Console, as_json: bool) -> None:
    """Print a comparison: a table, what could not be compared, a conclusion for each figure, the sizes."""
    if as_json:
        print(result.to_json())
        return
    for key, side in (("A", result.a), ("B", result.b)):
        say(console, f"{key}: {side.label}", "bold")
    columns = ["", "A", "B", "A - B [95 % interval]", "p", "only A / B"]
    print_table(
        console,
        f"Correct on the same {result.images:,} images, in %; p by McNemar",
        columns,
        [_line(name, entry, entry.paired) for name, entry in result.accuracy.items() if entry.paired],
    )
    for name, entry in result.accuracy.items():
        said = entry.conclusion or f"not comparable: {entry.not_comparable}"
        console.print(f"{name.replace('_', ' ')}: {said}", markup=False, highlight=False)
    for key, only in (("A", result.only_a), ("B", result.only_b)):
        if only:
            console.print(f"only in {key}: {', '.join(only)}", markup=False, highlight=False)
    console.print("; ".join(_sizes(result)), markup=False, highlight=False)


def _same_images(a: Evaluated, b: Evaluated) -> None:
    """UserError unless both were evaluated on the same images: of the same data, as many of the test set's order."""
    if a.data.checksum != b.data.checksum:
        raise UserError(
            f"{a.path} was evaluated on {a.data.name} and {b.path} on {b.data.name}, which hold different images; "
            "compare runs on the same data."
        )
    counts = {len(outcome) for side in (a, b) for outcome in side.outcomes.values()}
    if a.data.test != b.data.test or counts != {a.data.test}:
        raise UserError(
            f"{a.path} was evaluated on {a.data.test} test images and {b.path} on {b.data.test}; evaluate both "
            "on the same (dataset.test_subset=N) and give the two evaluation-*.json."
        )


def _obstacle(name: str, a: Evaluated, b: Evaluated) -> str:
    """Why the figures `name` mean different things; empty where they can be compared."""
    if name not in a.outcomes or name not in b.outcomes:
        return "outcomes are missing"
    ours, theirs = (side.report.accuracy[name] for side in (a, b))
    whole_suite = name == "worst_case"
    if isinstance(ours, AttackAccuracy) and isinstance(theirs, AttackAccuracy):
        if ours.attack != theirs.attack:
            return "settings differ"
        narrowed = [_narrowed(entry, side) for entry, side in ((ours, a), (theirs, b))]
        if narrowed[0] != narrowed[1]:
            return "one is of a cumulative suite, where only images that survived other attacks are attacked"
        whole_suite = narrowed[0]
    return "the attacks of the two suites differ" if whole_suite and a.suite != b.suite else ""


def _narrowed(entry: AttackAccuracy, of: Evaluated) -> bool:
    """Whether other attacks had left the attack fewer images than there are; the first of a cascade meets them all."""
    return entry.cumulative and entry.attacked != of.report.accuracy.clean.correct


def _paired(name: str, a: Evaluated, b: Evaluated) -> ComparedAccuracy:
    mark = "" if name == "clean" else a.report.doubt or b.report.doubt
    paired = paired_difference(a.outcomes[name], b.outcomes[name], LEVEL)
    return ComparedAccuracy(
        a=a.report.accuracy[name].value,
        b=b.report.accuracy[name].value,
        paired=paired,
        conclusion=conclusion(paired.low, paired.high, "accurate" if name == "clean" else "robust") + mark,
    )


def conclusion(low: float, high: float, what: str) -> str:
    """What the interval of the difference a - b says, in words."""
    if low > 0 or high < 0:
        return f"{'A' if low > 0 else 'B'} is more {what}"
    return f"no difference shown at {100 * LEVEL:.0f} %"


def _side(side: Evaluated) -> ComparedRun:
    sizes = side.report.size.named()
    return ComparedRun(
        path=str(side.path),
        label=side.label,
        run=side.report.run.id,
        threat=side.report.evaluated.threat,
        size={name: SizeShare(bytes=sizes[name].bytes, fraction=sizes[name].fraction) for name in SIZES},
    )


def _line(name: str, entry: ComparedAccuracy, paired: PairedDifference) -> list[str]:
    points = f"{100 * paired.difference:+.1f} [{100 * paired.low:+.1f}, {100 * paired.high:+.1f}]"
    accuracies = (100 * paired.both + 100 * only for only in (paired.only_a, paired.only_b))
    return [
        name.replace("_", " "),
        *(f"{accuracy / paired.n:.1f}" for accuracy in accuracies),
        points,
        f"{paired.p_value:.2g}",
        f"{paired.only_a:,} / {paired.only_b:,}",
    ]


def _sizes(result: CompareResult) -> Iterator[str]:
    """Each of SIZES of both in a line."""
    for name in SIZES:
        both = (
            f"{key} {byte_size(side.size[name].bytes)} ({share(side.size[name].fraction)} of dense)"
            for key, side in (("A", result.a), ("B", result.b))
        )
        yield f"{name} size: {', '.join(both)}"
