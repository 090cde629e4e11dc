"""Train what is left after pruning: zeros stay zero."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robcomp.models.parameterisation import prunable_parameters
from robcomp.trainers.compressor import TRANSIENT, Compressor

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState


@dataclass
class SupportState:
    """The prunable parameters, and by their names the masks of what may be non-zero."""

    masks: dict[str, Tensor]
    tensors: list[Tensor] = field(metadata=TRANSIENT)

    @torch.no_grad()
    def apply(self) -> None:
        torch._foreach_mul_(self.tensors, list(self.masks.values()))


@dataclass(frozen=True)
class FixedSupport(Compressor):
    """Weights and batch-norm scales outside the support stay zero; those inside train on.

    The support is that of the stage that `Stage.support` names (a lottery ticket: initial values at kept positions,
    Frankle and Carbin, 2019), or else the non-zeros at the start: the masked retraining after ADMM (Ye et al., ICCV
    2019, stage 3, where the mask multiplies the gradients; here it multiplies the weights after the step, which is the
    same for those that stay).
    """

    kind: ClassVar[str] = "fixed_support"

    def start(self, state: "TrainState") -> SupportState:
        tensors = prunable_parameters(state.model)
        if state.support is None:
            masks = {name: tensor.detach() != 0 for name, tensor in tensors.items()}
        else:
            masks = {name: state.support[name] for name in tensors}
        support = SupportState(masks, list(tensors.values()))
        support.apply()
        return support

    def after_step(self, state: "TrainState") -> None:
        state.compression.apply()

    def compressed(self, state: "TrainState") -> dict[str, Tensor]:
        masks = state.compression.masks
        return {name: tensor.detach() * masks[name] for name, tensor in prunable_parameters(state.model).items()}
