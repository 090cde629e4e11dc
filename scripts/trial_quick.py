#!/usr/bin/env python3
"""How near does the default suite come to AutoAttack, and what do its last attacks cost? Networks of finished runs.

    OMP_NUM_THREADS=1 python scripts/trial_quick.py results/quick/networks.txt > results/quick/table.txt

LIST names a run directory a line. For each: how many of the first images are classified correctly under PGD alone (the
attacks of quick on all images), under the whole of quick, and under AutoAttack, which is read from the run's later
evaluations; the verdict that the run's report has, and the one of now; the seconds of each. Then the mean and the
largest difference from AutoAttack, in images of 100.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from robcomp.errors import UserError
from robcomp.evaluation.accuracy import measure
from robcomp.evaluation.evaluator import Evaluator
from robcomp.report.accuracy import Verdict
from robcomp.report.schema import Report
from robcomp.runs.load import load

HEAD = f"{'network':<44} clean   PGD quick   AA  seconds: PGD +rest verdict    AA  verdict: then, now"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path, help="text file with a run directory a line")
    parser.add_argument("--images", type=int, default=100, help="test images (default 100)")
    args = parser.parse_args()
    print(HEAD, flush=True)
    rows = []
    for folder in map(Path, args.list.read_text().split()):
        rows.append(trial(folder, args.images))
        print(line(rows[-1]), flush=True)
    for sentence in summary(rows):
        print(sentence)


def trial(folder: Path, images: int) -> dict[str, Any]:
    """The figures of one network, as counts of images."""
    run = load(folder, ["attack=quick", f"dataset.test_subset={images}", "device=cpu"])
    suite, facts = run.config.attack, run.report.run
    with Evaluator(run.model, run.dataset.test, run.config.seed, suite.batch_size) as evaluator:
        started = time.monotonic()
        measured = measure(evaluator, suite)
        whole = time.monotonic() - started
    found = measured.accuracy.attacks
    cheap = [name for name, entry in found.items() if not entry.cumulative]
    seconds = {name: entry.seconds or 0.0 for name, entry in found.items()}
    strongest = autoattack(folder, images)
    return {
        "network": f"{facts.dataset} {facts.method} {_size(run.report)} seed {facts.seed}",
        "clean": measured.accuracy.clean.correct,
        "pgd": int(np.logical_and.reduce([measured.outcomes[name] for name in cheap]).sum()),
        "quick": measured.accuracy.worst_case.correct,
        "autoattack": strongest and strongest[0],
        "seconds": {
            "pgd": round(sum(seconds[name] for name in cheap), 1),
            "rest": round(sum(seconds[name] for name in found if name not in cheap), 1),
            "verdict": round(whole - sum(seconds.values()), 1),
            "autoattack": strongest and round(strongest[1], 1),
        },
        "verdict_then": _said(run.report.verdict),
        "verdict_now": _said(measured.verdict),
    }


def autoattack(folder: Path, images: int) -> tuple[int, float] | None:
    """(images that withstand AutoAttack, its seconds) where the run was attacked by it on just as many images."""
    for page in sorted(folder.glob("evaluation-*.json")):
        report = Report.read(page)
        accuracy = report.accuracy
        if accuracy.autoattack and report.evaluated.threat == report.threat and accuracy.clean.images == images:
            return accuracy.worst_case.correct, sum(entry.seconds or 0.0 for entry in accuracy.attacks.values())
    return None


def line(row: dict[str, Any]) -> str:
    seconds = row["seconds"]
    left = [row[key] for key in ("clean", "pgd", "quick", "autoattack")]
    times = [seconds[key] for key in ("pgd", "rest", "verdict", "autoattack")]
    shown = "  ".join("   -" if count is None else f"{count:4d}" for count in left)
    spent = " ".join("    -" if time is None else f"{time:5.1f}" for time in times)
    return f"{row['network']:<44} {shown}  {spent:>32}  {row['verdict_then']} -> {row['verdict_now']}"


def summary(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Means and largest differences from AutoAttack, for each data set."""
    compared = [row for row in rows if row["autoattack"] is not None]
    for dataset in dict.fromkeys(row["network"].split()[0] for row in compared):
        own = [row for row in compared if row["network"].split()[0] == dataset]
        for key in ("pgd", "quick"):
            gaps = [row[key] - row["autoattack"] for row in own]
            yield f"{dataset}, {len(own)} networks: {key} above AutoAttack by {np.mean(gaps):.1f}, at most {max(gaps)}"


def _size(report: Report) -> str:
    return f"{100 * report.density.total:.3g} %"


def _said(verdict: Verdict | None) -> str:
    return "none" if verdict is None else ", ".join(check.name for check in verdict.flags) or "no flag"


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
