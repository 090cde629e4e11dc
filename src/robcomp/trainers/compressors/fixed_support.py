"""Train what is left after pruning: zeros stay zero."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robcomp.models.parameterisation import weights
from robcomp.trainers.compressor import Compressor

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState


def prunable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What pruning may set to zero, by name: conv and linear weights (or factors), then the scales of batch norms."""
    norms = {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
    }
    return weights(model) | norms


@dataclass
class FixedSupport(Compressor):
    """Weights and batch-norm scales outside the support stay zero; those inside train on.

    The support is that of the stage that `Stage.support` names (a lottery ticket: initial values at kept positions,
    Frankle and Carbin, 2019), or else the non-zeros at the start: the masked retraining after ADMM (Ye et al., ICCV
    2019, stage 3, where the mask multiplies the gradients; here it multiplies the weights after the step, which is the
    same for those that stay).
    """

    def setup(self, state: "TrainState") -> None:
        tensors = prunable_parameters(state.model)
        self.tensors = list(tensors.values())
        if state.support is None:
            self.masks = {name: tensor.detach() != 0 for name, tensor in tensors.items()}
        else:
            self.masks = {name: state.support[name] for name in tensors}
        self.after_step(state)

    @torch.no_grad()
    def after_step(self, state: "TrainState") -> None:
        torch._foreach_mul_(self.tensors, list(self.masks.values()))

    def compressed(self, model: nn.Module) -> dict[str, Tensor]:
        tensors = prunable_parameters(model)
        return {name: tensor.detach() * self.masks[name] for name, tensor in tensors.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masks = state["masks"]
