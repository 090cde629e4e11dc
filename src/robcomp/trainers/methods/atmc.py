"""Adversarially trained model compression (ATMC)."""

from dataclasses import dataclass

from robcomp.errors import UserError
from robcomp.models.parameterisation import FactoredForm
from robcomp.trainers.compressors.codebook import FULL_BITS, QuantisedL0, check_bits
from robcomp.trainers.compressors.sparsity import GlobalL0
from robcomp.trainers.method import METHODS, RecipeContext
from robcomp.trainers.methods.al0 import AdversarialL0
from robcomp.trainers.stage import Stage


@METHODS.register("atmc")
@dataclass
class ATMC(AdversarialL0):
    """ATMC (Gui et al., NeurIPS 2019, algorithm 1): W = U V + C in each layer, one l0 budget over all factors of all
    layers, and at most 2^bits distinct non-zero values in each factor, under adversarial training.

    From A-l0's result the layers are factored (as published, the fixed identity included) and trained on; with
    `bits` < 32 a last stage learns the codebooks by ADMM. bits = 32 is the paper's ATMC-32bits: no codebook at all.
    """

    bits: int = 8
    identity: bool = True  # the published code's fixed identity beside U or V
    rho: float = 0.1  # ADMM penalty
    quantise_interval: int = 10  # optimiser steps between two updates of the quantised copy

    known_quirks = AdversarialL0.known_quirks | {
        "off_support": "the quantised copy may have non-zeros where the weights have none (ATMC code)"
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bits(self.bits, "method.bits")
        for name, low in (("rho", 0), ("quantise_interval", 1)):
            if getattr(self, name) < low:
                raise UserError(f"method.{name}={getattr(self, name)} is out of range; at least {low} is allowed.")

    def stages(self, context: RecipeContext) -> list[Stage]:
        objective, form = context.adversarial, FactoredForm(self.identity)
        stages = super().stages(context)
        stages.append(context.stage("factored", objective, GlobalL0(self.ratio), parameterisation=form))
        if self.bits < FULL_BITS:
            published = ("off_support" in self.quirks, "stale_statistics" in self.quirks)
            constraint = QuantisedL0(self.ratio, self.bits, self.rho, self.quantise_interval, *published)
            stages.append(context.stage("quantised", objective, constraint, parameterisation=form))
        return stages

    @property
    def weight_bits(self) -> int:
        return self.bits
