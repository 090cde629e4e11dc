"""Accuracy under each attack of a suite, and the worst case over them, image by image."""

from typing import Any

import numpy as np

from robcomp.attacks.base import Attack
from robcomp.evaluation.evaluator import Evaluator, Outcome, proportion
from robcomp.evaluation.suite import SuiteConfig

Records = dict[str, dict[str, Any]]
Outcomes = dict[str, np.ndarray]


def evaluate_suite(evaluator: Evaluator, suite: SuiteConfig) -> tuple[Records, Outcomes]:
    """The report's "accuracy" block and, under the same keys, whether each image was classified correctly (bool [N]).

    An image that is wrong without an attack counts as wrong under every attack and is not attacked. Individually, each
    attack meets all other images and minimum-norm attacks tell their distances (`NAME.distance`, float32 [N]); else
    the attacks come cheapest first, each meets the images that survived the cheaper ones, and its figure is the worst
    case so far.
    """
    attacks, counted = suite.build(), suite.counted()
    clean = worst = evaluator.clean
    records: Records = {"clean": proportion(clean)}
    outcomes: Outcomes = {"clean": clean}
    for name in order(attacks, suite.individual):
        alone = suite.individual or name not in counted
        outcome = evaluator.under(name, attacks[name], clean if alone else worst, distances=alone)
        if name in counted:
            worst = worst & outcome.correct
        outcomes[name] = outcome.correct
        records[name] = _record(attacks[name], outcome, clean) | ({} if alone else {"cumulative": True})
        if name not in counted:
            records[name]["excluded"] = True
        if outcome.distance is not None:
            outcomes[f"{name}.distance"] = np.where(clean, outcome.distance, 0).astype(np.float32)
    outcomes["worst_case"], records["worst_case"] = worst, proportion(worst)
    return records, outcomes


def order(attacks: dict[str, Attack], individual: bool) -> list[str]:
    """The names as given, or cheapest first where each attack spares the next ones work."""
    return list(attacks) if individual else sorted(attacks, key=lambda name: attacks[name].cost)


def _record(attack: Attack, outcome: Outcome, clean: np.ndarray) -> dict[str, Any]:
    record = {
        **proportion(outcome.correct),
        "attack": attack.settings(),
        "attacked": outcome.attacked,
        "seconds": round(outcome.seconds, 2),
    }
    if outcome.distance is not None and clean.any():
        median = float(np.median(outcome.distance[clean]))
        record["median_distance"] = median if np.isfinite(median) else None
    return record
