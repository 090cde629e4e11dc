"""The lottery ticket that ADMM pruning finds."""

from dataclasses import dataclass

from robcomp.trainers.compressors.fixed_support import KeepSupport
from robcomp.trainers.method import METHODS, Task
from robcomp.trainers.methods.admm import ADMM
from robcomp.trainers.stage import Stage


@METHODS.register("lottery")
@dataclass
class LotteryTicket(ADMM):
    """ADMM pruning decides which weights stay; those go back to their initial values and are trained adversarially from
    there, as long as a dense network would be (Ye et al., ICCV 2019, Table 5; Frankle and Carbin, ICLR 2019).

    Published, the ticket is a smaller network, cut out along the filters that pruning keeps; here the others stay in
    place as zeros, and their biases or batch-norm shifts still train. The schedule is `schedule.ticket`, or that of the
    dense stage.
    """

    def stages(self, task: Task) -> list[Stage]:
        ticket = task.stage("ticket", task.adversarial, KeepSupport(), "dense", start="init", support="admm")
        return [*self.pruning(task), ticket]
