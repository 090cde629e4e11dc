"""Adversarial images made on one network and classified by others."""

import time
from collections.abc import Sequence

import numpy as np

from robcomp.attacks.base import Attack
from robcomp.evaluation.progress import EvaluationProgress
from robcomp.evaluation.robustness import Advance, Evaluator, Outcome


class Source(Evaluator):
    """A network that is attacked while others look on."""

    def shown(self, name: str, attack: Attack, candidates: np.ndarray, judges: Sequence[Evaluator]) -> list[Outcome]:
        """For each judge which of `candidates` (bool [N]) it classifies correctly, before and after the attack here.

        Batch by batch, from where the ledger stands; the judges have the same images.
        """
        entry = self.entry(name, attack, candidates, "shown", len(judges))
        arrays, done, seconds = self.ledger.recall(entry)
        arrays = arrays or {str(number): np.zeros(len(self), bool) for number in range(len(judges))}
        began = time.monotonic()
        for chosen, x_adv, y, _ in self.batches(name, attack, candidates, done):
            for number, judge in enumerate(judges):
                arrays[str(number)][chosen] = judge.correct(x_adv, y).cpu().numpy() & judge.clean[chosen]
            done += len(chosen)
            self.ledger.note(entry, arrays, done, seconds + time.monotonic() - began)
        seconds += time.monotonic() - began
        return [Outcome(arrays[str(number)], int(candidates.sum()), seconds) for number in range(len(judges))]


def titled(progress: EvaluationProgress, title: str) -> Advance:
    """An evaluator's advance as a bar of another title than the attack's name."""
    return lambda _, done, total: progress.advance(title, done, total)
