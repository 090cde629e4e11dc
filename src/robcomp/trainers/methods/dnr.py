"""Sparse from scratch by dynamic network rewiring: robust (DNR), or on clean images only (DNR-C)."""

from dataclasses import dataclass

from torch import nn

from robcomp.errors import UserError, unknown
from robcomp.models.parameterisation import weights
from robcomp.trainers.compressors.masks import SCHEMES
from robcomp.trainers.compressors.rewiring import LAYERS, Rewiring
from robcomp.trainers.method import METHODS, RecipeContext, SparseMethod
from robcomp.trainers.objectives import Adversarial, Natural, NaturalWarmup, Objective
from robcomp.trainers.stage import Stage


@METHODS.register("dnr")
@dataclass
class DynamicRewiring(SparseMethod):
    """Dynamic network rewiring (DNR; Kundu et al., 2020, algorithm 1): one training from scratch at a fixed density.

    The objective is beta CE(x) + (1 - beta) CE(x_adv) with the dynamic L2 regulariser; for the first `warmup` of the
    stage it is CE(x) alone. `ratio` is the density of the layers that `layers` names; the paper's experiments have
    layers=conv, where linear layers stay dense and the network as a whole keeps more than `ratio`.
    Published for CIFAR-10: 200 epochs (5 of them warm-up), batches of 128, SGD at 0.1 with momentum 0.9 and weight
    decay 5e-4, times 0.2 after 80, 120 and 160 epochs; PGD of 7 steps of 0.01 at eps 8/255; density 0.05, channels 0.5.
    """

    scheme: str = "irregular"  # what is rewired: weights one by one, or whole input channels (channel)
    layers: str = "all"  # or conv
    beta: float = 0.5  # weight of the clean loss and its regulariser; 1: no adversary
    rho: float = 1e-4  # dynamic L2; 0: off
    rate: float = 0.5  # share of a layer that the first rewiring moves; the last ones next to nothing
    warmup: float = 0.025  # share of the stage on clean images without the regulariser

    known_quirks = SparseMethod.known_quirks | {
        "unscaled_start": "the weights that the first masks leave start as in a dense network (sparse_learning code)"
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("scheme", SCHEMES), ("layers", LAYERS)):
            if getattr(self, name) not in allowed:
                raise unknown(f"method.{name}", getattr(self, name), allowed)
        for name in ("beta", "rate", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"method.{name}={getattr(self, name):g} is out of range; 0 to 1 is allowed.")
        if not self.rho >= 0:
            raise UserError(f"method.rho={self.rho:g} is out of range; at least 0 is allowed, and 0 is no regulariser.")

    def stages(self, context: RecipeContext) -> list[Stage]:
        return [context.stage("rewired", self.objective(context), self.rewiring, schedule="dense")]

    def check(self, model: nn.Module) -> None:
        self.rewiring.room(weights(model))

    def objective(self, context: RecipeContext) -> Objective:
        """The hybrid loss after the warm-up; where there is no adversary (beta = 1), the natural loss throughout."""
        if self.beta == 1 or isinstance(context.chosen, Natural):
            return context.chosen or context.natural
        return NaturalWarmup(context.chosen or Adversarial(context.threat_attack, self.beta), self.warmup)

    @property
    def rewiring(self) -> Rewiring:
        scaled = "unscaled_start" not in self.quirks
        return Rewiring(self.ratio, self.scheme, self.layers, self.rate, self.rho, self.beta, self.warmup, scaled)


@METHODS.register("dnr_c")
@dataclass
class CleanRewiring(DynamicRewiring):
    """DNR for clean images only (DNR-C; paper, section 4.4): beta = 1, so natural training with the regulariser."""

    beta: float = 1.0
