"""Pruning by ADMM: the weights are drawn towards a pruned copy of themselves while they train, then cut."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from robcomp.errors import UserError
from robcomp.models.parameterisation import prunable_parameters
from robcomp.projections import group_mask, l0_
from robcomp.trainers.compressor import TRANSIENT, Compressor
from robcomp.trainers.compressors.layer_budgets import BN_FILTER, LayerBudgets, scales
from robcomp.trainers.state import gradients

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState


@dataclass
class ADMMState:
    """One entry a pruned tensor: the units it keeps, its copy Z, its dual U; the penalty and how often it was updated.

    masks: of all prunable parameters, where the zeros of the start stay zero; else empty.
    """

    kept: list[int]
    copies: list[Tensor]
    duals: list[Tensor]
    masks: list[Tensor]
    penalty: float
    tensors: list[Tensor] = field(metadata=TRANSIENT)
    prunable: list[Tensor] = field(metadata=TRANSIENT)
    updates: int = 0


@dataclass(frozen=True)
class ADMMCompressor(Compressor):
    """Per pruned tensor W (a layer's weight; for bn_filter the scale of its batch norm) a pruned copy Z and a scaled
    dual U; Pi keeps what `budgets` allows the layer.

    Start: Z := Pi(W), U := 0. Each step: the gradient rho (W - Z + U) of rho/2 |W - Z + U|^2 is added. After the last
    step of each of the stage's `periods` equal parts but the last (or every `interval` epochs):

        rho := rho_growth rho;   Z := Pi(W + U);   U := U + W - Z

    Nothing is pruned before the end; the final weights are Pi(W). With bn_filter, filters whose scale is zero become
    zero too, which changes no logit. With `progressive`, weights and scales that are zero at the start stay zero.

    attached_dual: the published code computes U := W - Z + U without detaching it, whereas Z goes through numpy and is
    a constant. After n updates U = sum over i of (W - Z_i), and every one of these W is the same leaf of the graph,
    whatever values it had then: dU/dW = n, so that W - Z + U has the slope n + 1 and the penalty's gradient is
    (n + 1) rho (W - Z + U). (Were Z = W + U attached too, W - Z + U would have no slope at all after an update.) True
    reproduces the factor.

    Source: Ye et al., ICCV 2019, section 3 and their code, admm.py: rho = 1e-3 growing by 1.3 over nine updates, which
    the factor of ten makes 0.1 at the end. With rho = 1e-2 and the detached dual the penalty ends at the same strength.
    """

    kind: ClassVar[str] = "admm"

    budgets: LayerBudgets
    rho: float = 1e-2
    rho_growth: float = 1.3
    periods: int = 10
    interval: float | None = None
    progressive: bool = False
    attached_dual: bool = False

    def __post_init__(self) -> None:
        for name, low in (("rho", 0), ("rho_growth", 1), ("periods", 1)):
            if getattr(self, name) < low:
                raise UserError(f"method.{name}={getattr(self, name)} is out of range; at least {low} is allowed.")
        if self.interval is not None and not self.interval > 0:
            raise UserError(f"method.interval={self.interval:g} is out of range; more than 0 epochs are allowed.")

    @property
    def refreshes_statistics(self) -> bool:
        return True

    def start(self, state: "TrainState") -> ADMMState:
        pruned, kept = _pruned(state.model, self.budgets)
        tensors = list(pruned.values())
        prunable = list(prunable_parameters(state.model).values()) if self.progressive else []
        return ADMMState(
            kept,
            copies=[self._project(tensor, count) for tensor, count in zip(tensors, kept, strict=True)],
            duals=[torch.zeros_like(tensor) for tensor in tensors],
            masks=[tensor.detach() != 0 for tensor in prunable],
            penalty=self.rho,
            tensors=tensors,
            prunable=prunable,
        )

    @torch.no_grad()
    def regularise(self, state: "TrainState") -> None:
        admm: ADMMState = state.compression
        factor = admm.penalty * (admm.updates + 1 if self.attached_dual else 1)
        slopes = gradients(admm.tensors)
        torch._foreach_add_(slopes, admm.tensors, alpha=factor)
        torch._foreach_add_(slopes, admm.duals, alpha=factor)
        torch._foreach_add_(slopes, admm.copies, alpha=-factor)

    @torch.no_grad()
    def after_step(self, state: "TrainState") -> None:
        admm: ADMMState = state.compression
        if admm.prunable:
            torch._foreach_mul_(admm.prunable, admm.masks)
        done = state.step + 1
        if done >= state.total_steps or self._part(state, done) == self._part(state, state.step):
            return
        admm.penalty *= self.rho_growth
        admm.updates += 1
        for tensor, copy, dual, kept in zip(admm.tensors, admm.copies, admm.duals, admm.kept, strict=True):
            dual.add_(tensor)
            copy.copy_(self._project(dual, kept))
            dual.sub_(copy)

    def _part(self, state: "TrainState", step: int) -> int:
        """In which part of the stage, counted from 0, the step of this index lies."""
        every = state.total_steps / self.periods if self.interval is None else self.interval * state.steps_per_epoch
        return math.floor(step / every + 1e-9)

    def _project(self, tensor: Tensor, kept: int) -> Tensor:
        """Pi: the nearest tensor with `kept` units. NaN is not looked for: the loop says so at the epoch's end."""
        nearest = tensor.detach().clone()
        if self.budgets.scheme in ("irregular", BN_FILTER):
            l0_([nearest], kept)
            return nearest
        return nearest.masked_fill_(~group_mask(nearest, self.budgets.scheme, kept), 0)

    def compressed(self, state: "TrainState") -> dict[str, Tensor]:
        result = super().compressed(state)
        pruned, kept = _pruned(state.model, self.budgets)
        for (name, tensor), count in zip(pruned.items(), kept, strict=True):
            result[name] = self._project(tensor, count)
        if self.budgets.scheme == BN_FILTER:
            for layer, scale in scales(state.model).items():
                if scale in pruned:
                    on = (result[scale] != 0).view(-1, 1, 1, 1)
                    result[f"{layer}.weight"] = result[f"{layer}.weight"] * on
        return result


def _pruned(model: nn.Module, budgets: LayerBudgets) -> tuple[dict[str, Tensor], list[int]]:
    """The tensors that ADMM works on, by parameter name, and how many units each keeps."""
    counts, parameters = budgets.counts(model), dict(model.named_parameters())
    names = scales(model) if budgets.scheme == BN_FILTER else {layer: f"{layer}.weight" for layer in counts}
    return {names[layer]: parameters[names[layer]] for layer in counts}, list(counts.values())
