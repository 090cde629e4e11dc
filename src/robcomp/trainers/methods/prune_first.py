"""Prune naturally, then train adversarially: the order that does not work."""

from dataclasses import dataclass

from robcomp.trainers.compressors.fixed_support import KeepSupport
from robcomp.trainers.compressors.sparsity import FixedMask, SparseMethod
from robcomp.trainers.method import METHODS, Task
from robcomp.trainers.stage import Stage


@METHODS.register("prune_first")
@dataclass
class PruneFirst(SparseMethod):
    """A natural network is pruned as in NAP, and what is left is trained adversarially under the same mask.

    The rival of concurrent pruning in Ye et al., ICCV 2019, figure 1: an adversarially trained network has fewer
    weights near zero than a natural one, so that what natural pruning leaves is not what robustness needs. The natural
    stages are natural whatever objective= asks for; the last has `schedule.adversarial`, or that of sparse stages.
    """

    def stages(self, task: Task) -> list[Stage]:
        mask = FixedMask(self.ratio)
        natural = [task.stage("dense", task.natural), task.stage("sparse", task.natural, mask)]
        return [*natural, task.stage("adversarial", task.adversarial, KeepSupport(), "sparse")]
