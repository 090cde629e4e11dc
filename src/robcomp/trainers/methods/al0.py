"""Adversarial training under an l0 budget (A-l0)."""

from dataclasses import dataclass

from robcomp.trainers.method import METHODS, Method, Task
from robcomp.trainers.sparsity import GlobalL0, check_ratio
from robcomp.trainers.stage import Stage


@METHODS.register("al0")
@dataclass
class AdversarialL0(Method):
    """Adversarial training under a global l0 budget, projected after every step (A-l0; ATMC paper, baselines)."""

    ratio: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio(self.ratio)

    def stages(self, task: Task) -> list[Stage]:
        objective, constraint = task.adversarial, GlobalL0(self.ratio)
        return [task.stage("dense", objective), task.stage("sparse", objective, constraint)]
