"""Robust training with compression in one shot, by ADMM in every iteration (Marshall's thesis)."""

import math
from dataclasses import dataclass, field

from robcomp.errors import UserError
from robcomp.trainers.attack_curriculum import AttackCurriculum
from robcomp.trainers.compressors.admm_oneshot import ADMMOneShotCompressor
from robcomp.trainers.method import METHODS, RecipeContext, SparseMethod
from robcomp.trainers.objectives import Adversarial, Natural, Objective, Trades
from robcomp.trainers.stage import Stage

APPROACH = 0.1  # lr * rho: the share of theta - theta' that a step takes away
STABLE = 4 / 3  # from here on the iteration of theta and u swings up (ADMMOneShotCompressor)


@METHODS.register("admm_oneshot")
@dataclass
class ADMMOneShotMethod(SparseMethod):
    """One stage from scratch, without pretraining or fine-tuning: per iteration PGD, theta' by projection, theta by
    an optimiser step, the dual; meanwhile eps, the PGD's steps and the budget k move to their final values by levels
    (Marshall's thesis, algorithm 1). `set` chooses the pruning scheme: irregular, funnel or redundant.

    The stage goes on past its epochs while its adversarial loss falls, for at most `limit` of them. eps_levels are
    fractions of threat.eps; steps_levels null stands for a third, two thirds and all of training.attack.steps.

    rho null stands for 0.1 over the schedule's learning rate: each step takes about a tenth of theta - theta' away. In
    a small trial (LeNet, 1,600 images of MNIST, 450 steps, eps 0.15, ratio 0.02) |theta - theta'| / |theta| ended at
    0.16 with SGD (lr 0.05, rho 2) and 0.24 with Adam (lr 1e-3, rho 100), and the last projection changed the robust
    accuracy of 500 test images by -0.8 and +0.8 points; rho 1 and 30 left 0.37 and 0.74 and cost 1 and 3 points.

    Published: k 1, .5, .1; eps 0, .03, .1 and steps 7, 14, 21; the clean loss weighs .1; 200 epochs or more, SGD with a
    learning rate of 5e-2 that falls every 10 epochs (by a factor that is not given; nor are rho, batch size, momentum
    and weight decay). Here the schedule is the data set's `dense`; schedule.oneshot sets fields for this stage alone,
    as +schedule.oneshot.lr=0.05.
    """

    set: str = "irregular"
    # inferred: method.rho - not given; 0.1 / learning rate is from a trial (docstring)
    rho: float | None = None  # ADMM penalty; null: 0.1 / learning rate
    # inferred: method.phi - not given
    phi: float = 0.1  # redundant: the relative distance that two filters keep
    # inferred: method.k_levels, method.eps_levels, method.steps_levels - to fit any ratio, eps and steps
    k_levels: list[float] | None = None  # kept fractions by equal parts of the stage; null: three geometric steps
    eps_levels: list[float] = field(default_factory=lambda: [1 / 3, 2 / 3, 1.0])
    steps_levels: list[int] | None = None
    natural_weight: float = 0.1  # of the clean loss, unless objective= chooses another
    # inferred: method.limit - training goes on "for longer", how long is not given
    limit: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.natural_weight < 1:
            raise UserError(
                f"method.natural_weight={self.natural_weight:g} is out of range; the clean loss weighs [0, 1) here."
            )
        if not 0 <= self.limit <= 10:
            raise UserError(
                f"method.limit={self.limit:g} is out of range; a share of the epochs in [0, 10] is allowed."
            )

    def stages(self, context: RecipeContext) -> list[Stage]:
        stage = context.stage("oneshot", self._objective(context), schedule="dense", limit=self.limit)
        rate = stage.schedule.lr
        rho = APPROACH / (rate or 1.0) if self.rho is None else self.rho
        if rho * rate >= STABLE:
            raise UserError(
                f"method.rho={rho:g} at a learning rate of {rate:g} swings up; less than {STABLE / rate:.3g} is "
                "allowed, or null for a tenth of 1 / learning rate."
            )
        stage.compressor = ADMMOneShotCompressor(self.ratio, self.set, rho, self.phi, self.k_levels)
        return [stage]

    def _objective(self, context: RecipeContext) -> Objective:
        if isinstance(context.chosen, Natural) or (self.eps_levels and not any(self.eps_levels)):
            return context.natural
        steps = context.threat_attack.steps
        levels = self.steps_levels
        if levels is None:
            levels = [math.ceil(steps / 3), math.ceil(2 * steps / 3), steps]
        own = Adversarial(context.threat_attack, self.natural_weight)
        base = context.chosen if isinstance(context.chosen, Adversarial | Trades) else own
        return AttackCurriculum(base, self.eps_levels, levels)
