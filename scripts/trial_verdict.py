#!/usr/bin/env python3
"""Does the verdict tell defences that only look robust from honest networks?

    python scripts/trial_verdict.py RUN_DIR [RUN_DIR ...] --cache FOLDER --json results.json

Judges each finished run as it is, and every defence of scripts/defences.py built on it; the networks that a defence
trains are small, and trained on the run's images. A line for each: the accuracy without an attack; under the suite and
under the strongest attack known, of the images that are correct without one; by how many points the former is higher;
the seconds of the suite and of the verdict; and the flags. A gap of more than 5 points must be flagged, an honest
network without one must not. The exit code is 1 if a line breaks this rule.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from defences import DEFENCES, GAP, Defended, Workshop, judge
from torch import nn

from robcomp.errors import UserError, unknown
from robcomp.runs.load import LoadedRun, load
from robcomp.storage import write_json

AS_IT_IS = "as it is"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="directories of finished runs")
    parser.add_argument("--images", type=int, default=100, help="test images (default 100)")
    parser.add_argument("--honest", action="store_true", help="the networks as they are only")
    parser.add_argument("--defences", default=",".join(DEFENCES), help="which of them, separated by commas")
    parser.add_argument("--steps", type=int, default=600, help="training steps of a defence's networks (default 600)")
    parser.add_argument("--queries", type=int, default=5000, help="of the strongest attack's Square (default 5000)")
    parser.add_argument("--cache", type=Path, help="folder to keep the networks in that defences train")
    parser.add_argument("--json", type=Path, help="file to write the lines to")
    args = parser.parse_args()
    names = [] if args.honest else args.defences.split(",")
    for name in names:
        if name not in DEFENCES:
            raise unknown("defence", name, DEFENCES)
    print(f"{'network':<34} {'defence':<30} clean  suite  strongest   gap  seconds  flags")
    lines = []
    for run in args.runs:
        loaded = load(run, ["attack=quick", f"dataset.test_subset={args.images}", "device=cpu"])
        workshop = workshop_of(loaded, args.steps, args.cache)
        lines += [line(loaded, name, workshop, args.queries) for name in [AS_IT_IS, *names]]
    if args.json:
        write_json(args.json, lines)
    sys.exit(summary(lines))


def workshop_of(loaded: LoadedRun, steps: int, cache: Path | None) -> Workshop:
    """Defences of a run: their own networks are trained at half of its eps, where PGD breaks more than Square."""
    shape, classes = loaded.spec.shape, len(loaded.dataset.classes)
    eps = float(loaded.config.threat.eps) / 2
    folder = cache and cache / f"{loaded.dataset.name}-{eps:g}-{steps}"
    return Workshop(
        loaded.model, loaded.dataset.train, loaded.dataset.test, convolutional(shape, classes), eps, steps, cache=folder
    )


def convolutional(shape: tuple[int, ...], classes: int) -> Callable[[int], list[nn.Module]]:
    """Two convolutions and two linear layers, by the number of channels they see."""
    height, width = (((side - 3) // 2 - 3) // 2 for side in shape[1:])

    def build(channels: int) -> list[nn.Module]:
        return [
            nn.Conv2d(channels, 16, 5, stride=2),
            nn.Conv2d(16, 32, 5, stride=2),
            nn.Sequential(nn.Flatten(), nn.Linear(32 * height * width, 100)),
            nn.Linear(100, classes),
        ]

    return build


def line(loaded: LoadedRun, name: str, workshop: Workshop, queries: int) -> dict[str, Any]:
    """A network's line: printed, and as it goes into the file."""
    defended = DEFENCES[name](workshop) if name in DEFENCES else Defended(loaded.model, loaded.model)
    suite = replace(loaded.config.attack, verdict=len(loaded.dataset.test))
    found = judge(defended, loaded.dataset.test, suite, queries=queries)
    facts = loaded.report.run
    network = f"{facts.dataset} {facts.model} {facts.method} seed {facts.seed}"
    wrong = found.wrong(honest=name == AS_IT_IS)
    flags = ("WRONG: " if wrong else "") + (" ".join(found.flags) or "-")
    print(
        f"{network:<34} {name:<30} {found.clean:5.0%}  {found.worst_case:5.0%}  {found.strongest:9.0%} "
        f"{found.gap:5.0f}  {found.seconds[0]:3.0f}+{found.seconds[1]:3.0f}  {flags}",
        flush=True,
    )
    return {"network": network, "run": facts.id, "defence": name, **asdict(found), "gap": found.gap, "wrong": wrong}


def summary(lines: list[dict[str, Any]]) -> int:
    """Prints how many were flagged, of those that had to be and of the honest ones; the exit code."""
    high = [row for row in lines if row["defence"] != AS_IT_IS and row["gap"] > GAP]
    honest = [row for row in lines if row["defence"] == AS_IT_IS]
    for what, rows in ((f"Defences with a gap above {GAP:g} points", high), ("Honest networks", honest)):
        print(f"{what}: {sum(bool(row['flags']) for row in rows)} of {len(rows)} flagged.")
    return int(any(row["wrong"] for row in lines))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
