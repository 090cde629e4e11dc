"""Compressors that give every tensor a codebook: learned by ATMC's ADMM copy, or fitted once after training."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robcomp.errors import UserError
from robcomp.projections.codebook import Codebook, project
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.compressors.sparsity import GlobalL0, L0State
from robcomp.trainers.state import gradients

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState

FULL_BITS = 32  # bits of a weight without a codebook
FIRST_ITERATIONS, WARM_ITERATIONS = 20, 5  # Lloyd iterations of an ADMM update: from nothing, from the last centres
FINAL_ITERATIONS = 100  # of the final codebook


def check_bits(bits: int, field: str) -> None:
    """UserError unless `bits` is 1 to 16, or 32 for none."""
    if not (1 <= bits <= 16 or bits == FULL_BITS):
        raise UserError(f"{field}={bits} is out of range; 1 to 16 bits are allowed, or {FULL_BITS} for no codebook.")


@dataclass(frozen=True)
class PostTraining(Compressor):
    """A codebook of at most 2^bits non-zero values for every tensor, fitted to the weights as they are.

    stale_statistics: batch norm keeps the running statistics of the weights before.
    """

    kind: ClassVar[str] = "post_training_codebook"
    revision: ClassVar[int] = 2

    bits: int
    stale_statistics: bool = False

    @property
    def refreshes_statistics(self) -> bool:
        return not self.stale_statistics

    def compressed(self, state: "TrainState") -> dict[str, Tensor]:
        return {
            name: project(weight.detach(), self.bits, iterations=FINAL_ITERATIONS)[0]
            for name, weight in zip(state.names, state.weights, strict=True)
        }


@dataclass
class QuantisedL0State(L0State):
    """ADMM's copies Z and duals u, in the order of `TrainState.weights`, and each codebook's last centres, by name."""

    copies: list[Tensor]
    duals: list[Tensor]
    centres: dict[str, Tensor] = field(default_factory=dict)

    def start_of(self, name: str) -> Codebook | None:
        """The codebook that the next one of this weight goes on from."""
        return Codebook(self.centres[name]) if name in self.centres else None


@dataclass(frozen=True)
class QuantisedL0(GlobalL0):
    """ATMC's quantised stage: the global l0 budget on W, and a copy Z of W with 2^bits values a tensor, held together
    by ADMM.

    Per step: the gradient of rho/2 |W + u - Z|^2 is added, then W is projected onto the budget. Every `interval`
    steps within an epoch: Z := codebook of W + u on the support of W, u := u + W - Z. The final weights are one more
    Z, made of the last W and u, since weights that entered the support after the last update are zero in the Z of then.
    Source: ATMC (NeurIPS 2019), algorithm 1; published code util_trts.model_train_proj_prune_admm_quant. Two changes
    keep the constraint exact: Z lives on W's support, where the published Z can exceed the budget, and u is zero
    outside it after an update (`off_support` leaves both as published); and the centres start from the last ones
    instead of random entries. The final weights get batch statistics of their own; in the published code they have
    those of W (`stale_statistics`).
    """

    kind: ClassVar[str] = "quantised_l0"
    revision: ClassVar[int] = 3  # raise also when the results of projections.codebook change

    bits: int = 8
    rho: float = 0.1
    interval: int = 10
    off_support: bool = False
    stale_statistics: bool = False

    @property
    def refreshes_statistics(self) -> bool:
        return not self.stale_statistics

    def start(self, state: "TrainState") -> QuantisedL0State:
        k = super().start(state).k
        copies = [weight.detach().clone() for weight in state.weights]
        return QuantisedL0State(k, copies, [torch.zeros_like(weight) for weight in state.weights])

    @torch.no_grad()
    def regularise(self, state: "TrainState") -> None:
        slopes = gradients(state.weights)
        torch._foreach_add_(slopes, state.weights, alpha=self.rho)
        torch._foreach_add_(slopes, state.compression.duals, alpha=self.rho)
        torch._foreach_add_(slopes, state.compression.copies, alpha=-self.rho)

    @torch.no_grad()
    def after_step(self, state: "TrainState") -> None:
        super().after_step(state)
        every = min(self.interval, max(1, state.steps_per_epoch - 1))  # an epoch of few steps has one update
        if state.step_in_epoch == 0 or state.step_in_epoch % every:
            return
        admm: QuantisedL0State = state.compression
        for name, weight, copy, dual in zip(state.names, state.weights, admm.copies, admm.duals, strict=True):
            dual.copy_(self._within(weight, dual))
            copy.copy_(self._update(admm, name, weight + dual))
            dual.add_(weight).sub_(copy)

    def compressed(self, state: "TrainState") -> dict[str, Tensor]:
        sparse, admm = super().compressed(state), state.compression
        return {
            name: project(weight + self._within(weight, dual), self.bits, admm.start_of(name), FINAL_ITERATIONS)[0]
            for (name, weight), dual in zip(sparse.items(), admm.duals, strict=True)
        }

    def _within(self, weight: Tensor, dual: Tensor) -> Tensor:
        """The dual where the weight is not zero; all of it with `off_support`."""
        return dual if self.off_support else dual * (weight != 0)

    def _update(self, admm: QuantisedL0State, name: str, values: Tensor) -> Tensor:
        """The projection of `values` onto the codebook set, going on from the last centres, which it replaces."""
        iterations = WARM_ITERATIONS if name in admm.centres else FIRST_ITERATIONS
        quantised, codebook = project(values, self.bits, admm.start_of(name), iterations)
        admm.centres[name] = codebook.centres
        return quantised
