"""Accuracy under each attack of a suite, and the worst case over them, image by image."""

from dataclasses import dataclass

import numpy as np

from robcomp.attacks.base import Attack
from robcomp.evaluation import verdict
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.evaluation.evaluator import Evaluator, Outcome, proportion
from robcomp.evaluation.suite import SuiteConfig, lies_within
from robcomp.report.accuracy import Accuracy, AttackAccuracy, Verdict, WorstCase

Outcomes = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Measured:
    """The accuracies of a suite, what the checks say of them (None: not asked), and the outcome of each image.

    outcomes: under the accuracies' names whether each image is classified correctly (bool [N]); under `NAME.distance`
    what a minimum-norm attack found (float32 [N]).
    """

    accuracy: Accuracy
    verdict: Verdict | None
    outcomes: Outcomes


def measure(evaluator: Evaluator, suite: SuiteConfig, progress: EvaluationProgress | None = None) -> Measured:
    """Run the suite, then the checks of its verdict; `progress` is told how far they are."""
    images = int(evaluator.clean.sum())
    judging = verdict.planned(suite, evaluator.split.images[0].numel()) if images else {}
    if progress is not None:
        progress.watch(evaluator)
        costs = {name: attack.cost for name, attack in suite.build().items()}
        progress.plan("attacks", costs, images, suite.order())
    accuracy, outcomes = evaluate_suite(evaluator, suite)
    if progress is not None and judging:
        costs = {name: attack.cost for name, attack in judging.items()}
        progress.plan(verdict.NAME, costs, min(suite.verdict, images), lines=False)
    judged = verdict.examine(evaluator, suite, outcomes)
    if progress is not None and judging:
        progress.close()
    return Measured(accuracy, judged, outcomes)


def evaluate_suite(evaluator: Evaluator, suite: SuiteConfig) -> tuple[Accuracy, Outcomes]:
    """The accuracies and, under the same names, whether each image was classified correctly (bool [N]).

    An image that is wrong without an attack counts as wrong under every attack and is not attacked. An attack meets all
    other images, and a minimum-norm one tells its distances (`NAME.distance`, float32 [N]); one for survivors meets the
    images that withstood the attacks before it with a ball within its own, and its figure is the worst case so far.
    """
    attacks, counted = suite.build(), suite.counted()
    clean = evaluator.clean
    found: dict[str, AttackAccuracy] = {}
    outcomes: Outcomes = {"clean": clean}
    for name, before in suite.order().items():
        candidates = np.logical_and.reduce([clean, *(outcomes[other] for other in before)])
        outcome = evaluator.under(name, attacks[name], candidates, distances=not before)
        outcomes[name] = outcome.correct
        found[name] = proportion(
            outcome.correct,
            AttackAccuracy,
            attack=attacks[name].settings(),
            attacked=outcome.attacked,
            seconds=round(outcome.seconds, 2),
            cumulative=bool(before),
            excluded=name not in counted,
            median_distance=_median(outcome, clean),
        )
        if outcome.distance is not None:
            outcomes[f"{name}.distance"] = np.where(clean, outcome.distance, 0).astype(np.float32)
    worst = np.logical_and.reduce([clean, *(outcomes[name] for name in counted)])
    accuracy = Accuracy(
        clean=proportion(clean),
        attacks=found,
        worst_case=proportion(worst),
        worst_cases=_worst_cases(suite.with_ball(), outcomes),
        only_class=evaluator.only_class,
    )
    return accuracy, outcomes | {"worst_case": worst}


def _worst_cases(bounded: dict[str, Attack], outcomes: Outcomes) -> list[WorstCase]:
    """One for each norm and eps, where there are several."""
    groups = {
        (attack.norm, attack.threat.eps): [name for name, other in bounded.items() if lies_within(other, attack)]
        for attack in bounded.values()
    }
    if len(groups) < 2:
        return []
    return [
        proportion(
            np.logical_and.reduce([outcomes[name] for name in names]), WorstCase, norm=norm, eps=eps, attacks=names
        )
        for (norm, eps), names in groups.items()
    ]


def _median(outcome: Outcome, clean: np.ndarray) -> float | None:
    """The median distance over the images that are correct without an attack; None where none was asked for."""
    if outcome.distance is None or not clean.any():
        return None
    return float(np.median(outcome.distance[clean]))
