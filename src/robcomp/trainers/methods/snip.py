"""Pruning before training (SNIP)."""

from dataclasses import dataclass

from robcomp.errors import UserError
from robcomp.trainers.compressors.snip import Snip
from robcomp.trainers.method import METHODS, RecipeContext, SparseMethod
from robcomp.trainers.stage import Stage


@METHODS.register("snip")
@dataclass
class SingleShotPruning(SparseMethod):
    """SNIP (Lee et al., ICLR 2019): the network is pruned once, before training, by connection sensitivity, and trained
    from there with its mask fixed. Natural training, unless objective= asks for another."""

    # inferred: method.images - from no source read here
    images: int = 1000  # training images that the sensitivities are measured on

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images < 1:
            raise UserError(f"method.images={self.images} is out of range; at least 1 is allowed.")

    def stages(self, context: RecipeContext) -> list[Stage]:
        objective, mask = context.chosen or context.natural, Snip(self.ratio, self.images)
        return [context.stage("snip", objective, mask, schedule="dense")]
