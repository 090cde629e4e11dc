#!/usr/bin/env python3
"""Render results/README.md from what lies under results/: each report.json, the tables' pages, and the speed logs.

Nothing on the page is typed: a run appears because its report is there, a figure because the report holds it. With
--curves, each run's log.jsonl is drawn as curves.png beside it.
"""

import argparse
import shlex
from pathlib import Path
from typing import Any

import yaml

from robcomp.figures.training import training_curves
from robcomp.report import render, schema
from robcomp.report.formatting import interval, markdown_table, percent, share, times
from robcomp.report.schema import doubt

LOGS = {
    "attacks-*.txt": "The attacks beside those of other libraries (scripts/compare_attacks.py)",
    "memory-*.txt": "Memory of the attacks (scripts/compare_attacks.py --memory)",
    "verdict-*.txt": "The verdict on honest and on masked networks (scripts/trial_verdict.py)",
    "speed-*.txt": "Speed of training steps (scripts/bench_training.py)",
}
COLUMNS = [
    "run",
    "method",
    "ratio",
    "bits",
    "epochs",
    "clean",
    "FGSM",
    "PGD",
    "worst case",
    "AutoAttack",
    "size (a)",
    "size (b)",
    "size (c)",
    "MACs executed",
    "training",
    "machine",
    "date",
]
LATER = "attack=autoattack"  # evaluations with this suite stand in their run's row, others have a table of their own
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


def main() -> None:
    """Write the page and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--curves", action="store_true", help="draw each run's log.jsonl as curves.png")
    args = parser.parse_args()
    folder = args.folder
    for log in folder.glob("*/*/log.jsonl") if args.curves else ():
        print(training_curves(log, log.with_name("curves.png")))
    (folder / "README.md").write_text(page(folder), encoding="utf-8")
    print(folder / "README.md")


def page(folder: Path) -> str:
    """The whole page."""
    parts = [
        "# Results",
        "Rendered by `make results` from the files beside this page. Accuracies in percent with 95 % "
        "intervals over test images; sizes are fractions of the dense float32 network as defined in "
        "[docs/report.md](../docs/report.md).",
    ]
    tables = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    if tables:
        parts += ["## Published tables, rebuilt", "\n".join(f"- [{path.stem}]({path.name})" for path in tables)]
    groups = sorted({path.parent.parent for path in folder.glob("*/*/report.json")})
    for group in groups:
        reports = [path.parent for path in sorted(group.glob("*/report.json"))]
        parts += [f"## {group.name}", *runs(folder, reports)]
    parts += [*evaluations(folder), *analyses(folder)]
    for pattern, title in LOGS.items():
        logs = sorted(folder.glob(pattern))
        parts += [f"## {title}"] if logs else []
        parts += [f"{path.name}:\n\n```\n{path.read_text(encoding='utf-8').strip()}\n```" for path in logs]
    return "\n\n".join(parts) + "\n"


def evaluations(folder: Path) -> list[str]:
    """The tables of later evaluations of the runs above: `robcomp evaluate`."""
    parts = ["## Later evaluations"]
    for path in sorted(folder.glob("*/*/evaluation-*.json")):
        report = schema.read(path)
        if LATER in report["evaluation"]["overrides"]:
            continue
        columns, cells = render.tables(report)["Accuracy"]
        command = shlex.join(["robcomp", "evaluate", f"run={path.parent}", *report["evaluation"]["overrides"]])
        parts += [
            f"[{path.parent.relative_to(folder)}]({path.parent.relative_to(folder)}/report.md), `{command}`, "
            f"{report['evaluation']['finished'][:10]}:",
            markdown_table(columns, cells),
            render.trust(report),
        ]
    return parts if len(parts) > 1 else []


def analyses(folder: Path) -> list[str]:
    """The figures of the analyses, each linked to its data."""
    parts = []
    for group in sorted({path.parent for path in folder.glob("analyses-*/*.json")}):
        note = group / "note.md"
        parts += [f"## {group.name}", *([note.read_text(encoding="utf-8").strip()] if note.exists() else [])]
        for path in sorted(group.glob("*.json")):
            stem = path.relative_to(folder).with_suffix("")
            parts.append(f"![{path.stem}]({stem}.png)\n\n[{stem.name}.json]({stem}.json), [.csv]({stem}.csv)")
    return parts


def runs(folder: Path, reports: list[Path]) -> list[str]:
    """The table of a group of runs, smallest budget last, and what their attacks were."""
    loaded = [(path, schema.read(path / "report.json"), _config(path)) for path in reports]
    loaded.sort(key=lambda item: (-item[1]["size"]["nonzero"], -item[1]["size"]["bits"]))
    attacks = sorted({_attacks(report) for _, report, _ in loaded})
    settings = sorted({shlex.join(o for o in r["run"]["overrides"] if not o.startswith(PATHS)) for _, r, _ in loaded})
    note = reports[0].parent / "note.md"
    return [
        *([note.read_text(encoding="utf-8").strip()] if note.exists() else []),
        markdown_table(COLUMNS, [_row(folder, *item) for item in loaded]),
        "Attacks: " + "; ".join(attacks) + ".",
        "Commands: " + "; ".join(f"`robcomp train {line}`" for line in settings) + ".",
    ]


PATHS = ("out=", "data_dir=")


def _row(folder: Path, path: Path, report: dict[str, Any], config: dict[str, Any]) -> list[str]:
    run, size, accuracy = report["run"], report["size"], report["accuracy"]
    seconds = sum(stage["seconds"] for stage in report["stages"])
    machine = run["machine"]
    return [
        f"[{run['dataset']}/{run['model']}/{run['id']}]({path.relative_to(folder)}/report.md)",
        ", ".join([run["method"], *(o for o in run["overrides"] if o.partition("=")[0] in TOLD_APART)]),
        str(config["method"].get("ratio", "-")),
        str(size["bits"]),
        str(run["train_epochs"]),
        _accuracy(accuracy.get("clean")),
        *(_accuracy(accuracy.get(name), doubt(report)) for name in ("fgsm", "pgd", "worst_case")),
        _later(path),
        *(f"{share(size[name]['fraction'])} ({times(size[name]['fraction'])})" for name in ("a", "b", "c")),
        share(report["macs"]["executed"] / report["macs"]["dense"]) if "macs" in report else "-",
        f"{seconds:,.0f} s",
        f"{machine['name']}, {machine['precision']}, torch {machine['torch']}",
        run["finished"][:10],
    ]


def _later(path: Path) -> str:
    """The worst case of the run's later evaluations with AutoAttack, each with its number of images."""
    reports = [schema.read(page) for page in sorted(path.glob("evaluation-*.json"))]
    cells = [r["accuracy"]["worst_case"] for r in reports if LATER in r["evaluation"]["overrides"]]
    return "; ".join(f"{_accuracy(cell)} of {cell['images']:,}" for cell in cells) or "-"


def _accuracy(entry: dict[str, Any] | None, mark: str = "") -> str:
    return f"{percent(entry['value'])}{mark} {interval(entry['interval'])}" if entry else "-"


def _attacks(report: dict[str, Any]) -> str:
    attacks = [dict(entry["attack"]) for entry in report["accuracy"].values() if "attack" in entry]
    return ", ".join(f"{attack.pop('name')} ({', '.join(map(_setting, attack.items()))})" for attack in attacks)


def _setting(item: tuple[str, Any]) -> str:
    name, value = item
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"


def _config(path: Path) -> dict[str, Any]:
    return yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
