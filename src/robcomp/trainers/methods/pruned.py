"""Pruning by a mask chosen once, then training on: natural (NAP) or adversarial (AP)."""

from dataclasses import dataclass

from robcomp.trainers.compressors.sparsity import FixedMask, SparseMethod
from robcomp.trainers.method import METHODS, Task
from robcomp.trainers.stage import Stage


@METHODS.register("ap")
@dataclass
class AdversarialPruning(SparseMethod):
    """Adversarial pruning (AP; ATMC paper, baselines): dense adversarial training, then the largest weights go on."""

    def stages(self, task: Task) -> list[Stage]:
        objective, mask = task.adversarial, FixedMask(self.ratio)
        return [task.stage("dense", objective), task.stage("sparse", objective, mask)]


@METHODS.register("nap")
@dataclass
class NaturalPruning(AdversarialPruning):
    """Non-adversarial pruning (NAP; ATMC paper, baselines): AP without an adversary in either stage."""

    def stages(self, task: Task) -> list[Stage]:
        objective, mask = task.chosen or task.natural, FixedMask(self.ratio)
        return [task.stage("dense", objective), task.stage("sparse", objective, mask)]
