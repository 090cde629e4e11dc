"""Adversarial training under an l0 budget (A-l0)."""

from dataclasses import dataclass

from robcomp.trainers.compressors.sparsity import GlobalL0
from robcomp.trainers.method import METHODS, RecipeContext, SparseMethod
from robcomp.trainers.stage import Stage


@METHODS.register("al0")
@dataclass
class AdversarialL0(SparseMethod):
    """Adversarial training under a global l0 budget, projected after every step (A-l0; ATMC paper, baselines)."""

    def stages(self, context: RecipeContext) -> list[Stage]:
        objective, constraint = context.adversarial, GlobalL0(self.ratio)
        return [context.stage("dense", objective), context.stage("sparse", objective, constraint)]
