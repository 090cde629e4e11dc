"""Compression in one shot from scratch: ADMM with a projection and a dual step in every iteration."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robcomp.errors import UserError, unknown
from robcomp.projections import funnel_, l0_, redundant_
from robcomp.trainers.compressor import TRANSIENT, Compressor, budget
from robcomp.trainers.stage import part

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState

SETS = ("irregular", "funnel", "redundant")


@dataclass
class ADMMOneShotState:
    """The budgets by parts of the stage, the dual u of each weight; theta' and the gradient of the two terms, which
    are made anew in every step."""

    budgets: list[int]
    duals: list[Tensor]
    copies: list[Tensor] = field(metadata=TRANSIENT)
    slopes: list[Tensor] = field(metadata=TRANSIENT)


@dataclass(frozen=True)
class ADMMOneShotCompressor(Compressor):
    """The splitting theta = theta', theta' in S, with an unscaled dual u: to the loss the augmented Lagrangian adds
    <u, theta - theta'> + rho/2 |theta - theta'|^2. Per iteration: theta' := Pi_S(theta + u / rho); theta by a step on
    the loss and on the two terms, whose gradient is u + rho (theta - theta'); u := u + rho (theta - theta').

    The step on the two terms is plain gradient descent with the optimiser's learning rate lr, beside the optimiser's
    own step on the loss. With plain SGD that is equation 8 as it stands. Momentum m, which the text does not mention,
    must not act on them: it answers 1 / (1 - m) steps late to a dual that moves in every step, and such a loop swings
    up (it is damped only where the lag is below a step, by Routh's criterion; seen at lr = 0.05, m = 0.9: |theta -
    theta'| ends above |theta| for rho of 0.03 to 0.3, and rho = 1 diverges). So theta - theta' shrinks by about lr rho
    per step, which must stay below 4/3 (Jury's criterion for a pruned weight and its dual), and a pruned weight comes
    back where its mean gradient outweighs rho times the threshold of the projection.

    set, under one budget of k weights over all layers: 'irregular' is |theta|_0 <= k; 'funnel' asks besides that the
    pruned fraction strictly grows with depth; 'redundant' that no two filters of equal shape are nearer than phi times
    the longer one. Its projection is that of the budget and then, on what is left, the removal of filters: a point of
    both sets, though not the nearest.

    k_levels: kept fractions for equal parts of the stage, the last of them `ratio`, which also holds where the stage
    goes on past its epochs; None for ratio^(1/3), ratio^(2/3), ratio.

    The final weights are Pi_S(theta) for the final k. The text ends with theta, which is in no S: that last projection
    is left out there. Not theta', since that adds u / rho to a weight that is about to enter the support, a value that
    no loss has been evaluated at, while theta is what was trained (and what a running mean of the weights averages).
    Source: Marshall's thesis, algorithm 1 and equations 7 to 9, the sets of sections 3 and 3.2.1.
    """

    kind: ClassVar[str] = "admm_oneshot"

    ratio: float
    set: str = "irregular"
    rho: float = 2.0
    phi: float = 0.1
    k_levels: list[float] | None = None

    def __post_init__(self) -> None:
        if self.set not in SETS:
            raise unknown("method.set", self.set, SETS)
        if not self.rho > 0:
            raise UserError(f"method.rho={self.rho:g} is out of range; the penalty is more than 0.")
        if not 0 <= self.phi <= 1:
            raise UserError(f"method.phi={self.phi:g} is out of range; a relative distance in [0, 1] is allowed.")
        levels = self.k_levels
        if levels is not None and (
            not levels or levels != sorted(levels, reverse=True) or levels[0] > 1 or levels[-1] != self.ratio
        ):
            shown = ",".join(f"{level:g}" for level in levels)
            raise UserError(
                f"method.k_levels=[{shown}] is not allowed; give kept fractions of at most 1 in falling order, the "
                f"last of them method.ratio={self.ratio:g}."
            )

    @property
    def refreshes_statistics(self) -> bool:
        return True

    def start(self, state: "TrainState") -> ADMMOneShotState:
        levels = self.k_levels or [self.ratio ** (1 / 3), self.ratio ** (2 / 3), self.ratio]
        budgets = [budget(state.model, level) for level in levels]
        return ADMMOneShotState(budgets, [torch.zeros_like(weight) for weight in state.weights], [], [])

    @torch.no_grad()
    def regularise(self, state: "TrainState") -> None:
        admm: ADMMOneShotState = state.compression
        k = admm.budgets[part(state.step, state.total_steps, len(admm.budgets))]
        admm.copies = list(torch._foreach_add(state.weights, admm.duals, alpha=1 / self.rho))
        self._project_(admm.copies, k)
        apart = torch._foreach_sub(state.weights, admm.copies)
        admm.slopes = list(torch._foreach_add(admm.duals, apart, alpha=self.rho))

    @torch.no_grad()
    def after_step(self, state: "TrainState") -> None:
        admm: ADMMOneShotState = state.compression
        torch._foreach_add_(state.weights, admm.slopes, alpha=-state.optimizer.param_groups[0]["lr"])
        torch._foreach_add_(admm.duals, torch._foreach_sub(state.weights, admm.copies), alpha=self.rho)

    def compressed(self, state: "TrainState") -> dict[str, Tensor]:
        tensors = [weight.detach().clone() for weight in state.weights]
        self._project_(tensors, budget(state.model, self.ratio))
        return dict(zip(state.names, tensors, strict=True))

    def _project_(self, tensors: Sequence[Tensor], k: int) -> None:
        """Move `tensors`, in place, into the set with a budget of k."""
        if self.set == "funnel":
            funnel_(tensors, k)
            return
        l0_(tensors, k)
        if self.set == "redundant":
            redundant_(tensors, self.phi)
