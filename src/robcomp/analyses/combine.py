"""Several networks as one: the mean of their probabilities, attacked through one member and through all at once.

Source: table C.1 of the thesis. Attacked through a member only, a combination looks robust because the images were made
for another network; the adaptive attack knows all members and follows the gradient of the mean itself.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from robcomp.analyses.result import Result, cells, described
from robcomp.analyses.source import Source, titled
from robcomp.attacks.base import Attack
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.evaluation.evaluator import Evaluator, proportion
from robcomp.figures.combine import combine as figure
from robcomp.report.formatting import interval, percent, print_table
from robcomp.report.results import CombinationRow, CombineResult
from robcomp.runs.load import LoadedRun, load_all

WHOLE = "combined"
TOGETHER = "the combination"  # in progress
TRUTH = (
    "Only the attack on the whole (adaptive) tells how robust the combination is: through one member it meets images "
    "that were made for another network. Where those fool it all the same, the worst case counts them."
)
WAYS = {  # way of attack -> the network and the way in words, {} is a run's label
    "clean": "{}, clean images",
    "alone": "{} alone",
    "through": "combined, attacked through {}",
    "adaptive": "combined, attacked as a whole (adaptive)",
    "worst": "combined, worst case",
}


class Average(nn.Module):
    """The logarithm of the mean of the members' probabilities, [N, classes]: its softmax is that mean."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        each = torch.stack([member(x).float().log_softmax(1) for member in self.members])
        return each.logsumexp(0) - math.log(len(self.members))


def combine(folders: Sequence[Path], overrides: Sequence[str], out: Path | None, console: Console) -> Path:
    """Evaluate, write and print how robust the runs are alone and combined; returns the JSON's path."""
    runs = load_all(folders, overrides)
    suite = runs[0].config.attack
    attacks = suite.build()
    plan = [[described(name, attack) for name, attack in attacks.items()], sorted(suite.excluded())]
    record = Result(CombineResult, runs, plan, overrides, out)
    result = record.present(console)
    if result is None:
        with EvaluationProgress(console) as progress:
            rows = _evaluate(runs, attacks, suite.excluded(), record, progress)
        settings = {name: attack.settings() for name, attack in attacks.items()}
        result = record.write(attacks=settings, note=TRUTH, rows=rows)
    _show(result, console)
    table = [{"attack": row.attack, "way": row.way, "run": row.run} | cells(row) for row in result.rows]
    return record.complete(table, lambda path: figure(result, path), console)


def _evaluate(
    runs: list[LoadedRun],
    attacks: dict[str, Attack],
    excluded: set[str],
    record: Result[CombineResult],
    progress: EvaluationProgress,
) -> list[CombinationRow]:
    """A row for each attack (worst_case: over all but those excluded), way (of WAYS) and run (or "combined")."""
    first, split = runs[0].config, runs[0].dataset.test
    how = first.seed, first.attack.batch_size
    with ExitStack() as stack:
        whole = stack.enter_context(Evaluator(Average([run.model for run in runs]), split, *how, record.ledger("all")))
        members = [
            stack.enter_context(Source(run.model, split, *how, record.ledger(str(part))))
            for part, run in enumerate(runs)
        ]
        pairs = list(zip([run.label for run in runs], members, strict=True))
        rows = [_row("clean", "clean", label, member.clean) for label, member in pairs]
        rows.append(_row("clean", "clean", WHOLE, whole.clean))
        overall = whole.clean
        names = [*(label for label, _ in pairs), TOGETHER]
        costs = {f"{name} on {on}": attack.cost for name, attack in attacks.items() for on in names}
        progress.plan("combine", costs, len(split))
        for name, attack in attacks.items():
            alone, through, worst = [], [], whole.clean
            for label, member in pairs:
                member.advance = titled(progress, f"{name} on {label}")
                own, other = member.transferred(name, attack, member.clean | whole.clean, [member, whole])
                progress.finished(f"{name} on {label}")
                alone.append(_row(name, "alone", label, own.correct))
                through.append(_row(name, "through", label, other.correct))
                worst = worst & other.correct
            whole.advance = titled(progress, f"{name} on {TOGETHER}")
            adaptive = whole.under(name, attack, whole.clean).correct
            progress.finished(f"{name} on {TOGETHER}")
            worst = worst & adaptive
            rows += [*alone, *through, _row(name, "adaptive", WHOLE, adaptive), _row(name, "worst", WHOLE, worst)]
            if name not in excluded:
                overall = overall & worst
    return [*rows, _row("worst_case", "worst", WHOLE, overall)]


def _row(attack: str, way: str, run: str, correct: np.ndarray) -> CombinationRow:
    return proportion(correct, CombinationRow, attack=attack, way=way, run=run, said=WAYS[way].format(run))


def _show(result: CombineResult, console: Console) -> None:
    for name in dict.fromkeys(row.attack for row in result.rows):
        title = "Worst case over all attacks and ways" if name == "worst_case" else f"Accuracy, {name}"
        print_table(console, title, ["network", "accuracy", "95 % interval"], _lines(result, name))
    console.print(f"\n{result.note}", highlight=False)


def _lines(result: CombineResult, name: str) -> Iterator[list[str]]:
    for row in result.rows:
        if row.attack == name:
            yield [row.said, percent(row.value), interval(row.interval)]
