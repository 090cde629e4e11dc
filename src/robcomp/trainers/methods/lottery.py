"""The lottery ticket that ADMM pruning finds."""

from dataclasses import dataclass

from robcomp.trainers.compressors.fixed_support import FixedSupport
from robcomp.trainers.method import METHODS, RecipeContext
from robcomp.trainers.methods.admm import ADMMMethod
from robcomp.trainers.stage import Stage


@METHODS.register("lottery")
@dataclass
class LotteryTicket(ADMMMethod):
    """ADMM pruning decides which weights stay; those go back to their initial values and are trained adversarially from
    there, as long as a dense network would be (Ye et al., ICCV 2019, Table 5; Frankle and Carbin, ICLR 2019).

    Published, the ticket is a smaller network, cut out along the filters that pruning keeps; here the others stay in
    place as zeros, and their biases or batch-norm shifts still train. The schedule is `schedule.ticket`, or that of the
    dense stage.
    """

    def stages(self, context: RecipeContext) -> list[Stage]:
        ticket = context.stage("ticket", context.adversarial, FixedSupport(), "dense", start="init", support="admm")
        return [*self.pruning(context), ticket]
