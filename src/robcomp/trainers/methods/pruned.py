"""Pruning by a mask chosen once, then training on: natural (NAP) or adversarial (AP)."""

from dataclasses import dataclass

from robcomp.trainers.compressors.sparsity import MagnitudeMask
from robcomp.trainers.method import METHODS, RecipeContext, SparseMethod
from robcomp.trainers.stage import Stage


@METHODS.register("ap")
@dataclass
class AdversarialPruning(SparseMethod):
    """Adversarial pruning (AP; ATMC paper, baselines): dense adversarial training, then the largest weights go on."""

    def stages(self, context: RecipeContext) -> list[Stage]:
        # inferred: schedule.sparse - how AP and NAP are fine-tuned is not printed; as A-l0's second stage
        objective, mask = context.adversarial, MagnitudeMask(self.ratio)
        return [context.stage("dense", objective), context.stage("sparse", objective, mask)]


@METHODS.register("nap")
@dataclass
class NaturalPruning(AdversarialPruning):
    """Non-adversarial pruning (NAP; ATMC paper, baselines): AP without an adversary in either stage."""

    def stages(self, context: RecipeContext) -> list[Stage]:
        objective, mask = context.chosen or context.natural, MagnitudeMask(self.ratio)
        return [context.stage("dense", objective), context.stage("sparse", objective, mask)]
