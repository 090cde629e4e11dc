"""Prune naturally, then train adversarially: the order that does not work."""

from dataclasses import dataclass

from robcomp.trainers.compressors.fixed_support import FixedSupport
from robcomp.trainers.compressors.sparsity import MagnitudeMask
from robcomp.trainers.method import METHODS, RecipeContext, SparseMethod
from robcomp.trainers.stage import Stage


@METHODS.register("prune_first")
@dataclass
class PruneFirst(SparseMethod):
    """A natural network is pruned as in NAP, and what is left is trained adversarially under the same mask.

    The rival of concurrent pruning in Ye et al., ICCV 2019, figure 1: an adversarially trained network has fewer
    weights near zero than a natural one, so that what natural pruning leaves is not what robustness needs. The natural
    stages are natural whatever objective= asks for; the last has `schedule.adversarial`, or that of sparse stages.
    """

    def stages(self, context: RecipeContext) -> list[Stage]:
        mask = MagnitudeMask(self.ratio)
        natural = [context.stage("dense", context.natural), context.stage("sparse", context.natural, mask)]
        return [*natural, context.stage("adversarial", context.adversarial, FixedSupport(), "sparse")]
