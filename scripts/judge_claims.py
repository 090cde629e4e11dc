#!/usr/bin/env python3
"""Which claims of a table hold under AutoAttack: its claims on PGD, judged again on later evaluations of its runs.

    python scripts/judge_claims.py results/rivals-mnist-cpu.json results/rivals-mnist-cpu

RUNS holds the table's run directories by the last part of their names, each attacked by `robcomp evaluate run=DIR
attack=autoattack` on the same images; of several such evaluations the one on the most images counts. Two lines for each
claim and point of the grid: under PGD on the table's images and under AutoAttack on those of the evaluations, the
difference in points with its 95 % interval, and the conclusion from it. One training seed, as in the table: "holds" is
about these networks, not about their methods.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from robcomp.errors import UserError
from robcomp.report.results import JudgedClaim, TableResult
from robcomp.report.schema import Report
from robcomp.tables.claims import compare
from robcomp.tables.records import Record
from robcomp.tables.spec import Point, load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="the table's JSON file")
    parser.add_argument("runs", type=Path, help="folder with its run directories")
    args = parser.parse_args()
    table = TableResult.read(args.table)
    spec = load(table.name)
    claims = [claim for claim in spec.comparisons if claim.metric == "pgd"]
    judged = {}
    for metric in ("pgd", "worst_case"):
        records = [_record(row.label, row.point, args.runs, row.run, metric) for row in table.records]
        asked = replace(spec, comparisons=[replace(claim, metric=metric) for claim in claims])
        judged[metric] = compare(asked, table.scale, records)
    for under_pgd, under_autoattack in zip(judged["pgd"], judged["worst_case"], strict=True):
        print(f"{_what(under_pgd):<68} PGD {_said(under_pgd)}")
        print(f"{'':<68} AutoAttack {_said(under_autoattack)}")


def _record(label: str, point: Point, runs: Path, run: str | None, metric: str) -> Record:
    """The row's outcomes: those of its report for PGD, and of its evaluation by AutoAttack; none without one."""
    folder = runs / Path(run or "").name
    pages = {page: Report.read(page) for page in folder.glob("evaluation-*.json")} if run and metric != "pgd" else {}
    standard = [(page.with_suffix(".npz"), report) for page, report in pages.items() if report.accuracy.autoattack]
    if run and metric == "pgd":
        standard = [(folder / "outcomes.npz", Report.read(folder / "report.json"))]
    if not standard:
        return Record(label, point, [], None, None, {})
    arrays, report = max(standard, key=lambda found: found[1].accuracy.clean.images)
    with np.load(arrays) as stored:
        outcomes = {name: stored[name].astype(bool) for name in stored.files if "." not in name}
    return Record(label, point, [], run, report, outcomes)


def _what(claim: JudgedClaim) -> str:
    at = ", ".join(f"{key.rpartition('.')[2]} {value:g}" for key, value in claim.point.items())
    return f"{claim.claim}{f' ({at})' if at else ''}"


def _said(claim: JudgedClaim) -> str:
    if claim.estimate is None or claim.low is None or claim.high is None:
        return claim.conclusion
    return f"{claim.estimate:+5.1f} [{claim.low:+5.1f}, {claim.high:+5.1f}]  {claim.conclusion}"


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
