"""Adversarial images made on one network and classified by others."""

import time
from collections.abc import Sequence

import numpy as np

from robcomp.attacks.base import Attack
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.evaluation.evaluator import Advance, Evaluator, Outcome


class Source(Evaluator):
    """A network that is attacked while others look on."""

    def transferred(
        self, name: str, attack: Attack, candidates: np.ndarray, targets: Sequence[Evaluator]
    ) -> list[Outcome]:
        """For each target which of `candidates` (bool [N]) it classifies correctly, before and after the attack here.

        Batch by batch, from where the ledger stands; the targets have the same images.
        """
        entry = self.entry(name, attack, candidates, "shown", len(targets))
        arrays, done, seconds = self.ledger.recall(entry)
        arrays = arrays or {str(number): np.zeros(len(self), bool) for number in range(len(targets))}
        began = time.monotonic()
        for chosen, x_adv, y, _ in self.batches(name, attack, candidates, done):
            for number, target in enumerate(targets):
                arrays[str(number)][chosen] = target.correct(x_adv, y).cpu().numpy() & target.clean[chosen]
            done += len(chosen)
            self.ledger.note(entry, arrays, done, seconds + time.monotonic() - began)
        seconds += time.monotonic() - began
        return [Outcome(arrays[str(number)], int(candidates.sum()), seconds) for number in range(len(targets))]


def titled(progress: EvaluationProgress, title: str) -> Advance:
    """An evaluator's advance as a bar of another title than the attack's name."""
    return lambda _, done, total: progress.advance(title, done, total)
