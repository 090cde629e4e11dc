"""Adversarial low-rank compression (ALR)."""

from dataclasses import dataclass

from torch import nn

from robcomp.errors import UserError, unknown
from robcomp.trainers.compressors.low_rank import RULES, RankBudget
from robcomp.trainers.method import METHODS, RecipeContext, SparseMethod
from robcomp.trainers.stage import Stage


@METHODS.register("alr")
@dataclass
class AdversarialLowRank(SparseMethod):
    """Adversarial low rank (ALR; ATMC paper, baselines): dense adversarial training, each layer replaced by its
    nearest W = U V of a lower rank, then adversarial training of the factors, without a projection.

    `ratio` is what U and V store together, as a fraction of the dense weights. The paper does not print how the factors
    were fine-tuned; the schedule is that of the other methods' second stage.
    """

    rule: str = "pooled"  # how the ranks are shared out: pooled (published) or greedy (per stored number)
    singular_values: float | None = None  # pooled: keep this fraction of all singular values (published), not `ratio`

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule not in RULES:
            raise unknown("method.rule", self.rule, RULES)
        if self.singular_values is not None and (self.rule != "pooled" or not 0 <= self.singular_values <= 1):
            raise UserError(
                f"method.singular_values={self.singular_values:g} with method.rule={self.rule}: a fraction from 0 to "
                "1 is allowed, with method.rule=pooled; leave it null to aim at method.ratio."
            )

    def stages(self, context: RecipeContext) -> list[Stage]:
        # inferred: schedule.sparse - how the factors are fine-tuned is not printed; as A-l0's second stage
        factors = context.stage("low_rank", context.adversarial, schedule="sparse", parameterisation=self.ranks)
        return [context.stage("dense", context.adversarial), factors]

    def check(self, model: nn.Module) -> None:
        self.ranks.check(model)

    @property
    def ranks(self) -> RankBudget:
        return RankBudget(self.ratio, self.rule, self.singular_values)
