"""Compressors that keep a fraction of the weights: by projection after every step, or by a mask chosen once."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robcomp.errors import UserError
from robcomp.models.parameterisation import dense_weight_counts
from robcomp.projections import l0, l0_, l0_masks
from robcomp.trainers.compressor import Compressor, budget

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState

SCOPES = ("global", "layer")


@dataclass
class L0State:
    """How many weights stay."""

    k: int


@dataclass(frozen=True)
class GlobalL0(Compressor):
    """Keep the floor(ratio * N) largest weights of all layers (and factors) together, after every step.

    The projection is global and unnormalised; momentum is not projected, so a pruned weight can come back (iterative
    hard thresholding). Source: ATMC (NeurIPS 2019), the l0 projection; published code pruning_tools.l0proj.
    """

    kind: ClassVar[str] = "global_l0"

    ratio: float

    def start(self, state: "TrainState") -> L0State:
        k = budget(state.model, self.ratio)
        l0_(state.weights, k)
        return L0State(k)

    def after_step(self, state: "TrainState") -> None:
        l0_(state.weights, state.compression.k)

    def compressed(self, state: "TrainState") -> dict[str, Tensor]:
        projected = l0([weight.detach() for weight in state.weights], state.compression.k)
        return dict(zip(state.names, projected, strict=True))


@dataclass
class MaskState:
    """A boolean mask for each of `TrainState.weights`."""

    masks: list[Tensor]


@dataclass(frozen=True)
class MaskCompressor(Compressor):
    """A mask that a subclass chooses at the start (`masks`), once and for all: what is outside stays zero."""

    def masks(self, state: "TrainState") -> list[Tensor]:
        """A boolean mask for each of `state.weights`; what each subclass defines."""
        raise TypeError(f"{type(self).__name__} defines no masks()")

    def start(self, state: "TrainState") -> MaskState:
        chosen = MaskState(self.masks(state))
        with torch.no_grad():
            torch._foreach_mul_(state.weights, chosen.masks)
        return chosen

    @torch.no_grad()
    def after_step(self, state: "TrainState") -> None:
        torch._foreach_mul_(state.weights, state.compression.masks)

    def compressed(self, state: "TrainState") -> dict[str, Tensor]:
        masked = torch._foreach_mul([weight.detach() for weight in state.weights], state.compression.masks)
        return dict(zip(state.names, masked, strict=True))


@dataclass(frozen=True)
class MagnitudeMask(MaskCompressor):
    """Keep the largest weights as they are at the start, once and for all; the others stay zero.

    scope 'global' ranks all layers together (AP, NAP: ATMC paper, baselines), 'layer' each layer by itself.
    """

    kind: ClassVar[str] = "magnitude_mask"

    ratio: float
    scope: str = "global"

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise UserError(f"method.scope={self.scope!r} is not allowed; choose from {', '.join(SCOPES)}.")

    def masks(self, state: "TrainState") -> list[Tensor]:
        if self.scope == "global":
            return l0_masks(state.weights, budget(state.model, self.ratio))
        counts = dense_weight_counts(state.model).values()
        return [
            l0_masks([weight], math.floor(self.ratio * count + 1e-9))[0]
            for weight, count in zip(state.weights, counts, strict=True)
        ]
