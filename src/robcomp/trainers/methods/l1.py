"""Robust L1 lasso."""

from dataclasses import dataclass

from robcomp.trainers.compressors.lasso import Lasso
from robcomp.trainers.compressors.sparsity import MagnitudeMask
from robcomp.trainers.method import METHODS, RecipeContext, SparseMethod
from robcomp.trainers.stage import Stage


@METHODS.register("l1")
@dataclass
class RobustL1(SparseMethod):
    """Adversarial training under an L1 penalty, then the largest weights go on without it: the "L1 lasso" that DNR is
    compared with (Table 2 there), after Rakin et al., 2019 (Robust sparse regularization, arXiv:1905.13074).

    That paper is not among this project's sources. Known from DNR's text: an L1 regulariser in the loss whose
    coefficient is the penalty factor, from scratch, small weights set to zero, then separate retraining; the sparsity
    is whatever the coefficient leads to. Inferred: the penalty enters by its proximal step and concerns conv and linear
    weights alone, nothing else of the paper (as noise in the network) is taken over, and `ratio` makes the mask an
    exact budget, so that methods can be compared at one size. Where the penalty alone leaves fewer, those stay.

    strength: in a small trial (LeNet, 1,600 images of MNIST, 450 steps, eps 0.15, a mask of ratio 0.02 not retrained)
    1e-4 kept 100 % of the weights with SGD (lr 0.05) and 68 % with Adam (lr 1e-3), 1e-3 94 % and 13 %; robust accuracy
    before and after the mask: 71 and 48, 66 and 53; 72 and 48, 51 and 54 %. A full run has 40 times the steps, so the
    milder one is the default.
    """

    # inferred: method.strength - DNR's text, the source, gives none; from a trial (docstring)
    strength: float = 1e-4

    def stages(self, context: RecipeContext) -> list[Stage]:
        objective = context.adversarial
        return [
            context.stage("lasso", objective, Lasso(self.strength), "dense"),
            context.stage("sparse", objective, MagnitudeMask(self.ratio)),
        ]
