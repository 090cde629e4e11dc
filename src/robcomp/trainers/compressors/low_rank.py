"""Layers of low rank, chosen from the trained weights under a budget of stored numbers."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from robcomp.errors import UserError
from robcomp.models.parameterisation import (
    Dense,
    LowRankForm,
    Parameterisation,
    dense_weight_count,
    effective_weight,
    factorable,
    form_of,
    weight_layers,
)
from robcomp.projections import greedy_ranks, pooled_ranks, ranks_of_fraction, stored_numbers
from robcomp.trainers.compressor import budget

RULES = ("pooled", "greedy")


@dataclass(frozen=True)
class RankBudget(Parameterisation):
    """Every layer as U V of a rank of its own: at most floor(ratio * N) stored numbers in all, or `singular_values`.

    A layer whose factors would not be smaller than its weight stays dense, as do grouped convolutions (they count
    too). rule: see `projections.rank`. With `singular_values` the pooled rule keeps that fraction of all singular
    values, as the published code does, whatever that stores.
    """

    kind: ClassVar[str] = "rank_budget"

    ratio: float
    rule: str = "pooled"
    singular_values: float | None = None

    @torch.no_grad()
    def resolve(self, model: nn.Module) -> Parameterisation:
        present = form_of(model)
        if isinstance(present, LowRankForm):
            return present  # chosen by an earlier stage
        layers = {name: layer for name, layer in weight_layers(model).items() if factorable(layer)}
        matrices = [effective_weight(layer).flatten(1) for layer in layers.values()]
        shapes = [(matrix.shape[0], matrix.shape[1]) for matrix in matrices]
        spectra = [torch.linalg.svdvals(matrix.float()).cpu() for matrix in matrices]
        if self.singular_values is not None:
            ranks = ranks_of_fraction(spectra, self.singular_values)
        else:
            choose = greedy_ranks if self.rule == "greedy" else pooled_ranks
            ranks = choose(spectra, shapes, budget(model, self.ratio) - _fixed(model))
        chosen = {
            name: rank
            for name, rank, shape in zip(layers, ranks, shapes, strict=True)
            if stored_numbers(rank, shape) < shape[0] * shape[1]
        }
        return LowRankForm(chosen) if chosen else Dense()

    def check(self, model: nn.Module) -> None:
        """UserError where `ratio` is too small for rank 1 in every layer of the dense `model`."""
        matrices = [layer.weight.flatten(1) for layer in weight_layers(model).values() if factorable(layer)]
        least = _fixed(model) + sum(stored_numbers(1, (matrix.shape[0], matrix.shape[1])) for matrix in matrices)
        count = dense_weight_count(model)
        if self.singular_values is None and budget(model, self.ratio) < least:
            raise UserError(
                f"method.ratio={self.ratio:g} allows {budget(model, self.ratio):,} of {count:,} weights, but rank 1 in "
                f"every layer takes {least:,}; give method.ratio={least / count + 5e-5:.4f} or more, or method=al0."
            )


def _fixed(model: nn.Module) -> int:
    """The weights of layers that cannot be factored."""
    layers = weight_layers(model).values()
    return sum(effective_weight(layer).numel() for layer in layers if not factorable(layer))
