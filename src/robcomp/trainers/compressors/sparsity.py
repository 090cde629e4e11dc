"""Compressors that keep a fraction of the weights: by projection after every step, or by a mask chosen once."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robcomp.errors import UserError
from robcomp.models.parameterisation import dense_weight_count, dense_weight_counts, weights
from robcomp.projections import l0, l0_, l0_masks
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.method import Method

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState

SCOPES = ("global", "layer")


@dataclass
class SparseMethod(Method):
    """A method that keeps a fraction of the dense network's conv and linear weights."""

    ratio: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio <= 1:
            raise UserError(
                f"method.ratio={self.ratio:g} is out of range; the kept fraction of the weights lies in (0, 1]."
            )

    def check(self, model: nn.Module) -> None:
        if budget(model, self.ratio) < 1:
            raise UserError(
                f"method.ratio={self.ratio:g} keeps none of the network's {dense_weight_count(model):,} conv and "
                f"linear weights; give at least {1.1 / dense_weight_count(model):.2g}."
            )


def budget(model: nn.Module, ratio: float) -> int:
    """k = floor(ratio * N), N the dense network's conv and linear weights, also where the model is factored."""
    return math.floor(ratio * dense_weight_count(model) + 1e-9)  # 0.3 * 10 is 2.999...


@dataclass
class GlobalL0(Compressor):
    """Keep the floor(ratio * N) largest weights of all layers (and factors) together, after every step.

    The projection is global and unnormalised; momentum is not projected, so a pruned weight can come back (iterative
    hard thresholding). Source: ATMC (NeurIPS 2019), the l0 projection; published code pruning_tools.l0proj.
    """

    ratio: float

    def setup(self, state: "TrainState") -> None:
        self.k = budget(state.model, self.ratio)
        l0_(state.weights, self.k)

    def after_step(self, state: "TrainState") -> None:
        l0_(state.weights, self.k)

    def compressed(self, model: nn.Module) -> dict[str, Tensor]:
        tensors = {name: weight.detach() for name, weight in weights(model).items()}
        return dict(zip(tensors, l0(list(tensors.values()), budget(model, self.ratio)), strict=True))


class MaskCompressor(Compressor):
    """Boolean `masks`, one for each of state.weights, that a subclass chooses in `setup`: what is outside stays zero."""

    @torch.no_grad()
    def after_step(self, state: "TrainState") -> None:
        torch._foreach_mul_(state.weights, self.masks)

    def compressed(self, model: nn.Module) -> dict[str, Tensor]:
        tensors = weights(model)
        masked = torch._foreach_mul([weight.detach() for weight in tensors.values()], self.masks)
        return dict(zip(tensors, masked, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masks = state["masks"]


@dataclass
class MagnitudeMask(MaskCompressor):
    """Keep the largest weights as they are at the start, once and for all; the others stay zero.

    scope 'global' ranks all layers together (AP, NAP: ATMC paper, baselines), 'layer' each layer by itself.
    """

    ratio: float
    scope: str = "global"

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise UserError(f"method.scope={self.scope!r} is not allowed; choose from {', '.join(SCOPES)}.")

    def setup(self, state: "TrainState") -> None:
        if self.scope == "global":
            self.masks = l0_masks(state.weights, budget(state.model, self.ratio))
        else:
            counts = dense_weight_counts(state.model).values()
            self.masks = [
                l0_masks([weight], math.floor(self.ratio * count + 1e-9))[0]
                for weight, count in zip(state.weights, counts, strict=True)
            ]
        self.after_step(state)
