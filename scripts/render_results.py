#!/usr/bin/env python3
"""Render results/README.md from what lies under results/: each report.json, the tables' pages, and the speed logs.

Nothing on the page is typed: a run appears because its report is there, a figure because the report holds it.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from robcomp.report import schema
from robcomp.report.render import doubt, grid, interval, percent, share, times

COLUMNS = [
    "run", "method", "ratio", "bits", "epochs", "clean", "FGSM", "PGD", "worst case", "size (a)", "size (b)",
    "size (c)", "MACs executed", "training", "machine", "date",
]  # fmt: skip


def main() -> None:
    """Write the page and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results"), help="default: results")
    folder = parser.parse_args().folder
    (folder / "README.md").write_text(page(folder), encoding="utf-8")
    print(folder / "README.md")


def page(folder: Path) -> str:
    """The whole page."""
    parts = ["# Results", "Rendered by `make results` from the files beside this page. Accuracies in percent with 95 % "
             "intervals over test images; sizes are fractions of the dense float32 network as defined in "
             "[docs/report.md](../docs/report.md)."]  # fmt: skip
    tables = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    if tables:
        parts += ["## Published tables, rebuilt", "\n".join(f"- [{path.stem}]({path.name})" for path in tables)]
    groups = sorted({path.parent.parent for path in folder.glob("*/*/report.json")})
    for group in groups:
        reports = [path.parent for path in sorted(group.glob("*/report.json"))]
        parts += [f"## {group.name}", *runs(folder, reports)]
    logs = sorted(folder.glob("speed-*.txt"))
    if logs:
        parts.append("## Speed of training steps (scripts/bench_training.py)")
        parts += [f"{path.name}:\n\n```\n{path.read_text(encoding='utf-8').strip()}\n```" for path in logs]
    return "\n\n".join(parts) + "\n"


def runs(folder: Path, reports: list[Path]) -> list[str]:
    """The table of a group of runs, smallest budget last, and what their attacks were."""
    loaded = [(path, schema.read(path / "report.json"), _config(path)) for path in reports]
    loaded.sort(key=lambda item: (-item[1]["size"]["nonzero"], -item[1]["size"]["bits"]))
    attacks = sorted({_attacks(report) for _, report, _ in loaded})
    settings = sorted({" ".join(o for o in r["run"]["overrides"] if not o.startswith(PATHS)) for _, r, _ in loaded})
    note = reports[0].parent / "note.md"
    return [
        *([note.read_text(encoding="utf-8").strip()] if note.exists() else []),
        grid(COLUMNS, [_row(folder, *item) for item in loaded]),
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
        f"{run['method']} ({config['method']['rule']})" if "rule" in config["method"] else run["method"],
        str(config["method"].get("ratio", "-")),
        str(size["bits"]),
        str(run["train_epochs"]),
        _accuracy(accuracy.get("clean")),
        *(_accuracy(accuracy.get(name), doubt(report)) for name in ("fgsm", "pgd", "worst_case")),
        *(f"{share(size[name]['fraction'])} ({times(size[name]['fraction'])})" for name in ("a", "b", "c")),
        share(report["macs"]["executed"] / report["macs"]["dense"]) if "macs" in report else "-",
        f"{seconds:,.0f} s",
        f"{machine['name']}, {machine['precision']}, torch {machine['torch']}",
        run["finished"][:10],
    ]


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
