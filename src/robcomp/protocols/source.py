"""Adversarial images made on one network and classified by others."""

import time
from collections.abc import Sequence

import numpy as np

from robcomp.attacks import Attack
from robcomp.evaluation.robustness import Advance, Evaluator, Outcome
from robcomp.progress import EvaluationProgress
from robcomp.storage import digest


class Source(Evaluator):
    """A network that is attacked while others look on."""

    def shown(self, name: str, attack: Attack, candidates: np.ndarray, judges: Sequence[Evaluator]) -> list[Outcome]:
        """For each judge which of `candidates` (bool [N]) it classifies right, before and after the attack on this one.

        Batch by batch, from where the ledger stands; the judges have the same images.
        """
        index = np.flatnonzero(candidates)
        entry = ["shown", name, attack.settings(), self.seed, self.batch_size, len(judges), digest(index.tolist())]
        arrays, done, seconds = self.ledger.recall(entry)
        arrays = arrays or {str(number): np.zeros(len(self), bool) for number in range(len(judges))}
        began = time.monotonic()
        for chosen, x_adv, y in self.examples(name, attack, candidates, done):
            for number, judge in enumerate(judges):
                right = judge.logits(x_adv).argmax(1) == y
                arrays[str(number)][chosen] = right.cpu().numpy() & judge.clean[chosen]
            done += len(chosen)
            self.ledger.note(entry, arrays, done, seconds + time.monotonic() - began)
        seconds += time.monotonic() - began
        return [Outcome(arrays[str(number)], len(index), seconds) for number in range(len(judges))]


def titled(progress: EvaluationProgress, title: str) -> Advance:
    """An evaluator's advance as a bar of another title than the attack's name."""
    return lambda _, done, total: progress.advance(title, done, total)
