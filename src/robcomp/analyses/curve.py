"""Accuracy while the adversary's budget rises: larger eps, or more steps (robustness curves).

Source: Algorithm 2 of the thesis and its figures 4.5 and C.1; figure 4 of DNR (Kundu et al., 2020). An image that fell
to a small budget counts as fallen for each larger one and is not attacked again, so a curve never rises. One that does
not reach chance level under a budget that allows any image speaks of a failing attack, not of a robust network.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from robcomp.analyses.result import Result, cells, described
from robcomp.attacks.base import Attack, MinimumNorm
from robcomp.errors import UserError, unknown
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.evaluation.evaluator import Advance, Evaluator, proportion
from robcomp.evaluation.suite import SuiteConfig
from robcomp.figures.curve import curve as figure
from robcomp.report.formatting import interval, percent, print_table
from robcomp.report.results import Curve, CurvePoint, CurveResult
from robcomp.runs.load import LoadedRun, load_all
from robcomp.settings.schema import Config
from robcomp.units import fraction

STEPS = (1, 2, 5, 10, 20, 50, 100)
OVER = ("eps", "steps")


@dataclass(frozen=True)
class Ladder:
    """An attack at rising budgets: `rungs` are the attacks at `values`, None at eps 0, where the image stays as it is.

    A minimum-norm attack over eps has no rungs: one run of it gives the accuracy at every value.
    """

    name: str
    attack: Attack
    values: list[float]
    rungs: list[Attack | None]

    @property
    def cost(self) -> int:
        """Passes for an image that withstands all of it."""
        return sum(rung.cost for rung in self.rungs if rung is not None) or self.attack.cost


def curve(
    folders: Sequence[Path],
    overrides: Sequence[str],
    over: str,
    values: Sequence[float],
    out: Path | None,
    console: Console,
) -> Path:
    """Evaluate, write and print the curves of all runs under each attack of the suite; returns the JSON's path.

    `over` is eps or steps; without `values` the eps rise from 0 to the whole range, the steps from 1 to 100.
    """
    runs = load_all(folders, overrides)
    ladders = plan(runs[0].config, runs[0].spec.shape, over, values)
    rungs = [[described(ladder.name, rung or ladder.attack) for rung in [None, *ladder.rungs]] for ladder in ladders]
    record = Result(CurveResult, runs, [over, [ladder.values for ladder in ladders], rungs], overrides, out)
    result = record.present(console)
    if result is None:
        with EvaluationProgress(console) as progress:
            costs = {_title(ladder, run): ladder.cost for run in runs for ladder in ladders}
            progress.plan("curves", costs, len(runs[0].dataset.test))
            curves = [line for i, run in enumerate(runs) for line in _evaluate(run, ladders, over, record, i, progress)]
        result = record.write(over=over, curves=curves)
    _show(result, console)
    rows = [
        {"run": line.run, "attack": line.name, over: point.budget, **cells(point)}
        for line in result.curves
        for point in line.points
    ]
    return record.complete(rows, lambda path: figure(result, path), console)


def plan(config: Config, shape: tuple[int, int, int], over: str, values: Sequence[float]) -> list[Ladder]:
    """A ladder for each attack of the suite, for images of `shape` [C, H, W]."""
    if over not in OVER:
        raise unknown("over", over, OVER)
    climb = _over_eps if over == "eps" else _over_steps
    return [
        climb(name, attack, replace(config.attack, attacks={name: config.attack.attacks[name]}), config, shape, values)
        for name, attack in config.attack.build().items()
    ]


def rising_eps(eps: float, largest: float) -> list[float]:
    """0, quarters of `eps` up to it, then 1.5, 2, 3, 4, 6, ... times `eps` as far as `largest`, which is the last."""
    factors = [0, 0.25, 0.5, 0.75, 1.0]
    while factors[-1] * eps < largest:
        factors += [1.5 * factors[-1], 2 * factors[-1]]
    return [*(factor * eps for factor in factors if factor * eps < largest), largest]


def whole_range(attack: Attack, shape: tuple[int, int, int]) -> float:
    """The eps that allows any image, in the attack's norm: from all black to all white."""
    return 1.0 if attack.norm == "Linf" else math.sqrt(math.prod(shape))


def _over_eps(
    name: str, attack: Attack, alone: SuiteConfig, config: Config, shape: tuple[int, int, int], values: Sequence[float]
) -> Ladder:
    if not attack.bounded:
        raise UserError(
            f"{name} does not bound the perturbation by eps, so it has no curve over eps; take it out: "
            f"'~attack.attacks.{name}'."
        )
    chosen = list(values) or rising_eps(
        attack.threat.eps or fraction(config.threat.eps, "threat.eps"), whole_range(attack, shape)
    )
    rungs = [alone.build(eps)[name] if eps > 0 else None for eps in chosen]
    return Ladder(name, attack, chosen, [] if isinstance(attack, MinimumNorm) else rungs)


def _over_steps(
    name: str, attack: Attack, alone: SuiteConfig, config: Config, shape: tuple[int, int, int], values: Sequence[float]
) -> Ladder:
    if not hasattr(attack, "steps"):
        raise UserError(
            f"{name} takes no steps, so there is no curve over them; take it out: '~attack.attacks.{name}'."
        )
    if any(value < 1 or value != int(value) for value in values):
        given = ",".join(f"{v:g}" for v in values)
        raise UserError(f"values={given} are not numbers of steps; give whole numbers such as 1,2,5.")
    chosen: list[float] = [int(value) for value in values] or list(STEPS)
    rungs: list[Attack | None] = [
        replace(alone, attacks={name: alone.attacks[name] | {"steps": steps}}).build()[name] for steps in chosen
    ]
    return Ladder(name, attack, chosen, rungs)


def _evaluate(
    run: LoadedRun,
    ladders: list[Ladder],
    over: str,
    record: Result[CurveResult],
    part: int,
    progress: EvaluationProgress,
) -> list[Curve]:
    first = record.runs[0].config
    ledger = record.ledger(str(part))
    with Evaluator(run.model, run.dataset.test, first.seed, first.attack.batch_size, ledger) as evaluator:
        lines = []
        for ladder in ladders:
            climb = _climb if ladder.rungs else _distances
            points = climb(evaluator, ladder, over, run, progress)
            progress.finished(_title(ladder, run))
            falls = points[-1].value < 1 / len(run.dataset.classes)
            whole = ladder.values[-1] >= whole_range(ladder.attack, run.spec.shape)
            lines.append(
                Curve(
                    run=run.label,
                    name=ladder.name,
                    attack=ladder.attack.settings(),
                    points=points,
                    not_run=ladder.values[len(points) :],
                    falls_to_chance=falls if over == "eps" else None,
                    whole_range=whole if over == "eps" else None,
                )
            )
    return lines


def _climb(
    evaluator: Evaluator, ladder: Ladder, over: str, run: LoadedRun, progress: EvaluationProgress
) -> list[CurvePoint]:
    """The points of a ladder, each on the images that the ones before left; over eps none below chance level."""
    surviving, points = evaluator.clean, []
    for done, (value, rung) in enumerate(zip(ladder.values, ladder.rungs, strict=True)):
        evaluator.advance = _told(progress, _title(ladder, run), done, len(ladder.values))
        spent: dict[str, float] = {"attacked": 0, "seconds": 0.0}
        if rung is not None:
            outcome = evaluator.under(ladder.name, rung, surviving)
            surviving = surviving & outcome.correct
            spent = {"attacked": outcome.attacked, "seconds": round(outcome.seconds, 2)}
        points.append(proportion(surviving, CurvePoint, **{over: value}, **spent))
        if over == "eps" and points[-1].value < 1 / len(run.dataset.classes):
            break
    return points


def _distances(
    evaluator: Evaluator, ladder: Ladder, over: str, run: LoadedRun, progress: EvaluationProgress
) -> list[CurvePoint]:
    """The points of a minimum-norm attack: an image survives eps where its nearest adversarial one is further away."""
    evaluator.advance = _told(progress, _title(ladder, run), 0, 1)
    outcome = evaluator.under(ladder.name, ladder.attack, evaluator.clean, distances=True)
    distance = outcome.distance
    assert distance is not None, f"{ladder.name} has no distances"
    spent = {"attacked": outcome.attacked, "seconds": round(outcome.seconds, 2)}
    return [
        proportion(evaluator.clean & (distance > value), CurvePoint, **{over: value}, **spent)
        for value in ladder.values
    ]


def _title(ladder: Ladder, run: LoadedRun) -> str:
    return f"{ladder.name} on {run.label}"


def _told(progress: EvaluationProgress, title: str, rung: int, rungs: int) -> Advance:
    """The advance of one rung as that of the whole ladder."""

    def advance(_: str, done: float, total: int) -> None:
        progress.advance(title, total * (rung + done / total) / rungs, total)

    return advance


def _show(result: CurveResult, console: Console) -> None:
    over = result.over
    for name in dict.fromkeys(line.name for line in result.curves):
        lines = [line for line in result.curves if line.name == name]
        values = sorted({point.budget for line in lines for point in line.points})
        shown = [
            {point.budget: f"{percent(point.value)} {interval(point.interval)}" for point in line.points}
            for line in lines
        ]
        rows = [[f"{value:.4g}", *(column.get(value, "-") for column in shown)] for value in values]
        print_table(console, f"Accuracy under {name} over {over}", [over, *(line.run for line in lines)], rows)
    for line in result.curves:
        for remark in _remarks(line, over, 1 / result.data.classes):
            console.print(remark, markup=False, highlight=False)


def _remarks(line: Curve, over: str, chance: float) -> list[str]:
    """What a reader of a curve over eps must know: where it was stopped, or that it should have fallen and did not."""
    who, last = f"{line.run} under {line.name}", line.points[-1]
    remarks = []
    if line.not_run:
        remarks.append(
            f"{who}: below chance ({percent(chance)}) at {over} {last.budget:.4g}; the {len(line.not_run)} larger "
            "values are not run."
        )
    if line.falls_to_chance is False:
        so = "any image is allowed there, so this attack fails" if line.whole_range else "larger values= go on"
        still = f"still {percent(last.value)} at {over} {last.budget:.4g}"
        remarks.append(f"{who}: {still}, not below chance ({percent(chance)}); {so}.")
    return remarks
