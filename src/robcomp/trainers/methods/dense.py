"""The dense references: natural training, and adversarial training (DA)."""

from dataclasses import dataclass

from robcomp.trainers.method import METHODS, Method, RecipeContext
from robcomp.trainers.stage import Stage


@METHODS.register("nat")
@dataclass
class NaturalTraining(Method):
    """Dense natural training (ATMC paper, Table 1)."""

    def stages(self, context: RecipeContext) -> list[Stage]:
        return [context.stage("dense", context.chosen or context.natural)]


@METHODS.register("da")
@dataclass
class AdversarialTraining(Method):
    """Dense adversarial training (DA; ATMC paper, baselines), where every robust method starts."""

    def stages(self, context: RecipeContext) -> list[Stage]:
        return [context.stage("dense", context.adversarial)]
