"""The hooks by which a constraint enters the loop."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from robcomp.models.parameterisation import weights

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState


@dataclass
class Compressor:
    """Owns a constraint on the weights and nothing else. This one has none: every hook is a no-op.

    Fields are settings and name the stage in the cache (with `revision`, to be raised when results change); what a
    compressor builds during training is set in `setup` and travels through `state_dict`.
    """

    revision: ClassVar[int] = 1
    statistics: ClassVar[bool] = False  # whether `finalise` moves the weights, so that batch norm's statistics go stale

    def setup(self, state: "TrainState") -> None:
        """Before the first step: masks, copies, duals."""

    def regularise(self, state: "TrainState") -> None:
        """After backward, before the optimiser: adds its penalty's gradient to the gradients in place."""

    def after_step(self, state: "TrainState") -> None:
        """After each optimiser step: projection, mask, dual update."""

    def after_epoch(self, state: "TrainState") -> None:
        """After each epoch: rewiring, schedules of its own."""

    def compressed(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights (and other parameters under the constraint) as they would ship now, by name.

        Made from the weights that `model` holds, which may be averages; the model itself is not touched.
        """
        return {name: weight.detach() for name, weight in weights(model).items()}

    @torch.no_grad()
    def finalise(self, model: nn.Module) -> None:
        """Writes `compressed` into the model: the constraint holds exactly from here on."""
        tensors = dict(model.named_parameters())
        for name, value in self.compressed(model).items():
            tensors[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """What training has built up (tensors, numbers, lists and dicts of them)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, after `setup`."""
