#!/usr/bin/env python3
"""Render the pages under results/ from what lies beside them: of each study results/STUDY/README.md, and report.md of
each of its runs; of each table results/NAME-SCALE.md.

A study holds runs (RUN/report.json, and RUN/evaluation-*.json where a run was attacked again), analyses (NAME.json with
NAME.png and NAME.csv), benchmarks (NAME.json alone) or logs (NAME.txt). What was found is written in its note.md; every
figure below that comes from the files. results/README.md, the overview, is written by hand. With --curves, each run's
log.jsonl is drawn as curves.png beside it.
"""

import argparse
import shlex
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from robcomp.errors import UserError
from robcomp.figures.training import training_curves
from robcomp.report import render
from robcomp.report.accuracy import Proportion, Settings
from robcomp.report.formatting import interval, markdown_table, percent, share, times
from robcomp.report.results import TableResult
from robcomp.report.schema import Report
from robcomp.report.size import CountedSize, FileSize
from robcomp.runs import effect
from robcomp.tables.page import page as table_page

WIDTH = 120
AUTOATTACK = (
    "attack=autoattack"  # evaluations with this suite stand in their run's row, others have tables of their own
)
TOLD_APART = (
    "method.scheme",
    "method.set",
    "method.rule",
    "+method.ratios",
    "objective",
    "training.weight_average",
    "model.width",
    "method.rho",
    "method.k_levels",
    "method.quirks",
)
PATHS = ("out=", "data_dir=")


class Run(NamedTuple):
    """A run directory of a study, its report and its configuration."""

    folder: Path
    report: Report
    config: dict[str, Any]

    @property
    def label(self) -> str:
        """Its method and what sets it apart, as a link to its report."""
        run = self.report.run
        settings = [o for o in run.overrides if o.partition("=")[0] in TOLD_APART]
        return f"[{', '.join([run.method, *settings])}]({self.folder.name}/report.md)"

    @property
    def data(self) -> str:
        """Its data set and network."""
        return f"{self.report.run.dataset}, {self.report.run.model}"

    @property
    def machine(self) -> str:
        """What it ran on, and when it ended."""
        machine, day = self.report.run.machine, self.report.run.finished[:10]
        return f"{machine.name}, {machine.precision}, torch {machine.torch}; {day}"


Columns = dict[str, Callable[[Run], str]]  # head -> what its cells say of a run


def main() -> None:
    """Write the pages and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--curves", action="store_true", help="draw each run's log.jsonl as curves.png")
    args = parser.parse_args()
    for log in args.folder.glob("*/*/log.jsonl") if args.curves else ():
        print(training_curves(log, log.with_name("curves.png")))
    for report in args.folder.glob("*/*/report.json"):
        report.with_suffix(".md").write_text(render.markdown(Report.read(report)), encoding="utf-8")
    for study in sorted(path for path in args.folder.iterdir() if path.is_dir()):
        (study / "README.md").write_text(page(study), encoding="utf-8")
        print(study / "README.md")
    for table in sorted(args.folder.glob("*.json")):
        text = table_page(TableResult.read(table), table.with_suffix(".png").name)
        table.with_suffix(".md").write_text(text, encoding="utf-8")
        print(table.with_suffix(".md"))


def page(study: Path) -> str:
    """The whole page of a study: its note, then its runs, later evaluations, commands, analyses and logs."""
    note = study / "note.md"
    parts = [note.read_text(encoding="utf-8").strip() if note.exists() else f"# {study.name}"]
    loaded = [_run(path.parent) for path in sorted(study.glob("*/report.json"))]
    loaded.sort(key=lambda run: (-run.report.size.nonzero, -run.report.size.bits))
    if loaded:
        parts += [*runs(loaded), *evaluations(loaded), *commands(loaded)]
    parts += [*analyses(study), *benchmarks(study), *logs(study)]
    parts.append("Rendered by `make results` from the files beside this page; its introduction is `note.md`.")
    return "\n\n".join(parts) + "\n"


def runs(loaded: list[Run]) -> list[str]:
    """The tables of the runs, smallest budget last, and what they were attacked with and ran on."""
    data = sorted({run.data for run in loaded})
    machines = sorted({run.machine for run in loaded})
    attacks = sorted({line for run in loaded for line in _attacks(run.report)})
    return [
        "## Accuracy",
        *([f"Data set and network: {data[0]}."] if len(data) == 1 else []),
        table(loaded, _accuracies(several=len(data) > 1)),
        wrapped(
            "Accuracies are percentages with 95 % intervals over test images; *worst case* counts an image only if it "
            "withstands every attack of the suite, and (!) marks figures that the report's verdict doubts. The attacks:"
        ),
        "\n".join(wrapped(f"- {line}", "  ") for line in attacks),
        "## Size and cost",
        table(loaded, COST),
        wrapped(
            "Sizes are fractions of the dense float32 network: *file* of real bytes, *coded* and *nominal* without the "
            "positions of the weights ([what each counts](../../docs/report.md#size)). MACs are the "
            "multiply-accumulate operations that robcomp executes for one image. The machines and days:"
        ),
        "\n".join(wrapped(f"- {line}", "  ") for line in machines),
    ]


def _accuracies(several: bool) -> Columns:
    data: Columns = {"data, network": lambda run: run.data} if several else {}
    return {
        "run": lambda run: run.label,
        **data,
        "ratio": lambda run: str(run.config["method"].get("ratio", "-")),
        "bits": lambda run: str(run.report.size.bits),
        "epochs": lambda run: str(run.report.run.train_epochs),
        "clean": lambda run: _accuracy(run.report.accuracy.clean),
        "FGSM": lambda run: _attacked(run, "fgsm"),
        "PGD": lambda run: _attacked(run, "pgd"),
        "worst case": lambda run: _attacked(run, "worst_case"),
        "AutoAttack": _autoattack,
    }


COST: Columns = {
    "run": lambda run: run.label,
    "ratio": lambda run: str(run.config["method"].get("ratio", "-")),
    "bits": lambda run: str(run.report.size.bits),
    "file": lambda run: _size(run.report.size.file),
    "coded": lambda run: _size(run.report.size.coded),
    "nominal": lambda run: _size(run.report.size.nominal),
    "MACs": lambda run: _operations(run.report),
    "training": lambda run: f"{sum(stage.seconds for stage in run.report.stages):,.0f} s",
}


def table(loaded: list[Run], columns: Columns) -> str:
    """A row for each run; columns that say nothing of any run are left out."""
    cells = {name: [cell(run) for run in loaded] for name, cell in columns.items()}
    told = {name: column for name, column in cells.items() if set(column) != {"-"}}
    return markdown_table(told, zip(*told.values(), strict=True))


def evaluations(loaded: list[Run]) -> list[str]:
    """The tables of later evaluations: `robcomp evaluate`."""
    parts = []
    for run in loaded:
        for path in sorted(run.folder.glob("evaluation-*.json")):
            report = Report.read(path)
            if report.evaluation is None or AUTOATTACK in report.evaluation.overrides:
                continue
            overrides = report.evaluation.overrides
            columns, cells = render.tables(report)["Accuracy"]
            parts += [
                f"### {', '.join(overrides)}",
                f"Of {run.label}, ratio {run.config['method'].get('ratio', '-')}, on "
                f"{report.evaluation.finished[:10]}:",
                fenced([shlex.join(["robcomp", "evaluate", f"run={run.folder}", *overrides])]),
                markdown_table(columns, cells),
                wrapped(render.trust(report)),
            ]
    return ["## Later evaluations", *parts] if parts else []


def commands(loaded: list[Run]) -> list[str]:
    """What makes the runs, in the order of the tables: what was typed, but for settings that change nothing in the run.

    A table gives its rows settings for other rows too, and robcomp refuses those of a single run.
    """
    typed = [[o for o in run.report.run.overrides if not o.startswith(PATHS)] for run in loaded]
    return ["## Commands", fenced(dict.fromkeys(shlex.join(["robcomp", "train", *_counting(line)]) for line in typed))]


def analyses(study: Path) -> list[str]:
    """The figures of the analyses, each linked to its data."""
    files = [path for path in sorted(study.glob("*.json")) if path.with_suffix(".csv").exists()]
    shown = [f"![{f.stem}]({f.stem}.png)\n\n[{f.name}]({f.name}), [.csv]({f.stem}.csv)" for f in files]
    return ["## Figures", *shown] if shown else []


def benchmarks(study: Path) -> list[str]:
    """The figures of scripts that time something, as they are."""
    parts = []
    for path in sorted(study.glob("*.json")):
        if not path.with_suffix(".csv").exists():
            parts += [f"## {path.stem}", _log(path)]
    return parts


def logs(study: Path) -> list[str]:
    """The logs, their long lines broken."""
    parts = []
    for path in sorted(study.glob("*.txt")):
        parts += [f"## {path.stem}", _log(path)]
    return parts


def _log(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").strip().splitlines()
    return "\n".join(["```text", *(wrapped(line, " " * 8) for line in lines), "```"])


def wrapped(line: str, indent: str = "") -> str:
    """A line broken at 120 characters, what follows indented; a shorter one as it is."""
    if len(line) <= WIDTH:
        return line
    return textwrap.fill(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def fenced(lines: Iterable[str]) -> str:
    """Commands in a block of code, long ones continued by a backslash between two of their words."""
    return "\n".join(["```sh", *map(_continued, lines), "```"])


def _continued(command: str) -> str:
    words = [shlex.quote(word) for word in shlex.split(command)]
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 > WIDTH:
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return " \\\n".join(lines)


def _counting(overrides: list[str]) -> list[str]:
    try:
        return effect.counting(overrides)
    except UserError:  # as it was recorded; the study's note says what this robcomp refuses
        return overrides


def _run(folder: Path) -> Run:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return Run(folder, Report.read(folder / "report.json"), config)


def _attacked(run: Run, name: str) -> str:
    entry = run.report.accuracy.entries().get(name)
    return _accuracy(entry, run.report.doubt) if entry else "-"


def _autoattack(run: Run) -> str:
    """The worst case of the run's later evaluations with AutoAttack, each with its number of images."""
    reports = [Report.read(page) for page in sorted(run.folder.glob("evaluation-*.json"))]
    cells = [r.accuracy.worst_case for r in reports if r.evaluation and AUTOATTACK in r.evaluation.overrides]
    return "; ".join(f"{_accuracy(cell)} of {cell.images:,}" for cell in cells) or "-"


def _accuracy(entry: Proportion, mark: str = "") -> str:
    return f"{percent(entry.value)}{mark} {interval(entry.interval)}"


def _size(size: CountedSize | FileSize) -> str:
    return f"{share(size.fraction)} ({times(size.fraction)})"


def _operations(report: Report) -> str:
    return share(report.macs.executed / report.macs.dense) if report.macs else "-"


def _attacks(report: Report) -> list[str]:
    """Each attack of a suite with all its settings."""
    named = {name: dict(entry.attack) for name, entry in report.accuracy.attacks.items()}
    return [f"`{name}`: {attack.pop('name')}, {', '.join(_settings(attack))}" for name, attack in named.items()]


def _settings(attack: Settings) -> list[str]:
    return [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in attack.items() if v not in ("", None)]


if __name__ == "__main__":
    main()
