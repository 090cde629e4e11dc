"""The lasso: an L1 penalty on the weights, by its proximal step."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robcomp.errors import UserError
from robcomp.trainers.compressor import Compressor

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState


@dataclass(frozen=True)
class Lasso(Compressor):
    """Minimises loss + strength * sum |w| over the conv and linear weights, by proximal gradient steps (ISTA).

    After each optimiser step with learning rate lr: w := sign(w) max(|w| - lr * strength, 0), which leaves exact zeros
    where a subgradient in the loss would only make weights small. Adam divides each weight's step on the loss by s =
    sqrt(v) + its eps, v the bias-corrected second moment; the proximal step in that metric is by lr * strength / s, so
    that the same strength is the same penalty under both optimisers. Momentum m lengthens the loss's steps by
    1 / (1 - m) and not these: under SGD the penalty acts as one of (1 - m) * strength.
    Source: Daubechies, Defrise and De Mol, 2004 (the iteration); Duchi, Hazan and Singer, 2011 (in a diagonal metric).
    """

    kind: ClassVar[str] = "lasso"

    strength: float

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise UserError(
                f"method.strength={self.strength:g} is out of range; an L1 penalty of at least 0 is allowed."
            )

    @torch.no_grad()
    def after_step(self, state: "TrainState") -> None:
        cut = torch._foreach_abs(state.weights)
        for size, threshold in zip(cut, self._thresholds(state), strict=True):
            torch.minimum(size, threshold, out=size)
        torch._foreach_mul_(cut, torch._foreach_sign(state.weights))
        torch._foreach_sub_(state.weights, cut)

    def _thresholds(self, state: "TrainState") -> list[Tensor]:
        """By how much the entries of each weight shrink: one number each, or one for each entry."""
        group = state.optimizer.param_groups[0]
        step = group["lr"] * self.strength
        if not isinstance(state.optimizer, torch.optim.Adam):
            return [torch.full((), step, device=weight.device) for weight in state.weights]
        moments = [state.optimizer.state[weight] for weight in state.weights]
        scales = torch._foreach_sqrt([moment["exp_avg_sq"] for moment in moments])
        torch._foreach_div_(scales, (1 - group["betas"][1] ** moments[0]["step"]).sqrt())
        torch._foreach_add_(scales, group["eps"])
        return [step / scale for scale in scales]
