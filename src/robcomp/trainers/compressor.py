"""The hooks by which a constraint on the weights enters the loop, and the budget that most constraints share."""

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from robcomp.models.parameterisation import dense_weight_count

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState

# Metadata of a run state's field that is no part of checkpoints: the model's own tensors, and what each step makes anew
TRANSIENT = {"checkpoint": False}


@dataclass(frozen=True)
class Compressor:
    """A constraint on the weights, and nothing else. This one has none: every hook is a no-op.

    Fields are settings, never changed; with `kind` and `revision` (to be raised when results change) they name the
    stage in the cache. What a compressor builds while a stage trains - masks, copies, duals - is its run state: `start`
    makes it, the loop keeps it as `TrainState.compression` and in checkpoints, and the other hooks find it there.
    """

    kind: ClassVar[str] = "none"
    revision: ClassVar[int] = 1

    @property
    def refreshes_statistics(self) -> bool:
        """Whether `finalise` moves the weights, so that batch norm's running statistics are then estimated again."""
        return False

    def start(self, state: "TrainState") -> Any:
        """Before the first step: the run state, None where there is none. May change the weights.

        A dataclass of tensors, numbers, strings and lists and dicts of them; other fields are marked TRANSIENT.
        """

    def regularise(self, state: "TrainState") -> None:
        """After backward, before the optimiser: adds its penalty's gradient to the gradients in place."""

    def after_step(self, state: "TrainState") -> None:
        """After each optimiser step: projection, mask, dual update."""

    def after_epoch(self, state: "TrainState") -> None:
        """After each epoch: schedules of its own."""

    def compressed(self, state: "TrainState") -> dict[str, Tensor]:
        """The weights (and other parameters under the constraint) as they would be finalised now, by name.

        Made from the weights that `state.model` holds, which may be averages; the model itself is not touched.
        """
        return {name: weight.detach() for name, weight in zip(state.names, state.weights, strict=True)}

    @torch.no_grad()
    def finalise(self, state: "TrainState") -> None:
        """Writes `compressed` into the model: the constraint holds exactly from here on."""
        tensors = dict(state.model.named_parameters())
        for name, value in self.compressed(state).items():
            tensors[name].copy_(value)


def capture(compression: Any) -> dict[str, Any]:
    """What a checkpoint keeps of a compressor's run state."""
    kept = [] if compression is None else [f.name for f in fields(compression) if f.metadata.get("checkpoint", True)]
    return {name: getattr(compression, name) for name in kept}


def restore(compression: Any, saved: dict[str, Any]) -> None:
    """The inverse of `capture`, into a run state that `Compressor.start` has made anew.

    ValueError where the fields differ: a run state that changes its fields needs a compressor of another `revision`.
    """
    if saved.keys() != capture(compression).keys():
        raise ValueError(f"a checkpoint of {sorted(saved)} does not fit {type(compression).__name__}")
    for name, value in saved.items():
        setattr(compression, name, value)


def budget(model: nn.Module, ratio: float) -> int:
    """k = floor(ratio * N), N the dense network's conv and linear weights, also where the model is factored."""
    return math.floor(ratio * dense_weight_count(model) + 1e-9)  # 0.3 * 10 is 2.999...
