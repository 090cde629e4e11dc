"""Adversarial images made on one network, shown to others: the transfer matrix.

Source: Algorithm 3 of the thesis and its figures 4.6 and C.2; the matrices of Ye et al. (ICCV 2019). All test images
are attacked on the source. An image that the target classifies wrong as it is counts as wrong, as in every figure of
robcomp, so where source and target are one network the figure is its accuracy under that (white-box) attack.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.console import Console

from robcomp.analyses.result import Result, cells, described
from robcomp.analyses.source import Source, titled
from robcomp.attacks.base import Attack
from robcomp.errors import UserError
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.evaluation.evaluator import Outcome, proportion
from robcomp.figures.transfer import transfer as figure
from robcomp.report.formatting import interval, percent, print_table
from robcomp.report.results import TargetAccuracy, TransferCell, TransferMatrix, TransferResult
from robcomp.runs.load import LoadedRun, load_all
from robcomp.settings.schema import Config


def transfer(
    sources: Sequence[Path],
    targets: Sequence[Path],
    overrides: Sequence[str],
    values: Sequence[float],
    out: Path | None,
    console: Console,
) -> Path:
    """Attack each source by each attack of the suite, show the images to each target; returns the JSON's path.

    One matrix for each attack and each eps of `values`; without `values`, for each attack at its own eps.
    """
    by_place = {folder.resolve(): folder for folder in [*sources, *targets]}
    runs = load_all(list(by_place.values()), overrides)
    of = dict(zip(by_place, runs, strict=True))
    source_runs, target_runs = ([of[folder.resolve()] for folder in folders] for folders in (sources, targets))
    attacks = list(_attacks(runs[0].config, values))
    sides = [[run.label for run in side] for side in (source_runs, target_runs)]
    record = Result(
        TransferResult, runs, [sides, [described(name, attack) for name, attack in attacks]], overrides, out
    )
    result = record.present(console)
    if result is None:
        with EvaluationProgress(console) as progress:
            result = _evaluate(runs, source_runs, target_runs, attacks, record, progress)
    _show(result, console)
    return record.complete(list(_rows(result)), lambda path: figure(result, path), console)


def _attacks(config: Config, values: Sequence[float]) -> Iterator[tuple[str, Attack]]:
    built = [config.attack.build(eps) for eps in values] or [config.attack.build()]
    for name in built[0]:
        for suite in built:
            if values and not suite[name].bounded:
                raise UserError(
                    f"{name} does not bound the perturbation by eps, so values= has no meaning for it; leave one of "
                    "them out."
                )
            yield name, suite[name]


def _evaluate(
    runs: list[LoadedRun],
    sources: list[LoadedRun],
    targets: list[LoadedRun],
    attacks: list[tuple[str, Attack]],
    record: Result[TransferResult],
    progress: EvaluationProgress,
) -> TransferResult:
    """Every attack on every source, shown to every target; written."""
    first = runs[0].config
    with ExitStack() as stack:
        nets = {
            run.label: stack.enter_context(
                Source(run.model, run.dataset.test, first.seed, first.attack.batch_size, record.ledger(str(part)))
            )
            for part, run in enumerate(runs)
        }
        nets_of_targets = [nets[run.label] for run in targets]
        clean = [proportion(nets[run.label].clean, TargetAccuracy, target=run.label) for run in targets]
        costs = {_title(name, attack, run): attack.cost for name, attack in attacks for run in sources}
        progress.plan("transfer", costs, len(runs[0].dataset.test))
        matrices = []
        for name, attack in attacks:
            found = []
            for run in sources:
                nets[run.label].advance = titled(progress, _title(name, attack, run))
                found.append(_row(nets[run.label], name, attack, nets_of_targets))
                progress.finished(_title(name, attack, run))
            matrices.append(
                TransferMatrix(
                    name=name,
                    eps=attack.threat.eps,
                    attack=attack.settings(),
                    cells=[
                        proportion(
                            outcome.correct,
                            TransferCell,
                            source=source.label,
                            target=target.label,
                            white_box=source is target,
                            seconds=round(outcome.seconds, 2),
                        )
                        for source, row in zip(sources, found, strict=True)
                        for target, outcome in zip(targets, row, strict=True)
                    ],
                )
            )
    return record.write(clean=clean, matrices=matrices)


def _title(name: str, attack: Attack, run: LoadedRun) -> str:
    return f"{name} at eps {attack.threat.eps:.4g} on {run.label}"


def _row(source: Source, name: str, attack: Attack, targets: list[Source]) -> list[Outcome]:
    """The outcome of each target on the images made on `source`; at eps 0 these are the clean ones."""
    if attack.bounded and attack.threat.eps == 0:
        return [Outcome(target.clean, 0, 0.0) for target in targets]
    return source.transferred(name, attack, np.ones(len(source), bool), targets)


def _rows(result: TransferResult) -> Iterator[dict[str, object]]:
    for target in result.clean:
        yield {"source": "", "target": target.target, "attack": "clean", "eps": 0.0, **cells(target)}
    for matrix in result.matrices:
        for cell in matrix.cells:
            place = {"source": cell.source, "target": cell.target, "attack": matrix.name, "eps": matrix.eps}
            yield place | cells(cell)


def _show(result: TransferResult, console: Console) -> None:
    clean = ["(clean images)", *map(_cell, result.clean)]
    for matrix in result.matrices:
        rows = [
            [source, *(_cell(cell) for cell in matrix.cells if cell.source == source)]
            for source in dict.fromkeys(cell.source for cell in matrix.cells)
        ]
        title = f"Accuracy under {matrix.name} at eps {matrix.eps:.4g}, made on (row), shown to (column)"
        print_table(console, title, ["made on", *(target.target for target in result.clean)], [clean, *rows])
    if any(cell.white_box for matrix in result.matrices for cell in matrix.cells):
        console.print("* attacked and classified by the same network (white box)", highlight=False)


def _cell(cell: TargetAccuracy) -> str:
    white = isinstance(cell, TransferCell) and cell.white_box
    return f"{percent(cell.value)} {interval(cell.interval)}{'*' if white else ''}"
