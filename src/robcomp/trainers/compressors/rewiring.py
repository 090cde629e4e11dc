"""A sparse network from the first step on, whose connections move: rewiring by magnitude and momentum (DNR)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robcomp.errors import UserError
from robcomp.models.parameterisation import weights
from robcomp.projections import apportion
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.compressors.masks import random_masks, rewired, unit_count, unit_size

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState

LAYERS = ("all", "conv")
MIN_REWIRINGS = 20  # rewirings, however short the stage


def rewirings(epochs: int, steps_per_epoch: int) -> list[int]:
    """After how many steps each rewiring comes, never after the last step: what ships has been trained since.

    A stage of more than 20 epochs is rewired at the end of every epoch but the last, as published. A shorter one is
    rewired 20 times at evenly spaced steps, or after every step where it has fewer.
    """
    if epochs > MIN_REWIRINGS:
        return [epoch * steps_per_epoch for epoch in range(1, epochs)]
    total = epochs * steps_per_epoch
    count = min(MIN_REWIRINGS, total - 1)
    return [total * (i + 1) // (count + 1) for i in range(count)]


@dataclass
class Rewiring(Compressor):
    """Dynamic network rewiring: masks of a fixed total density, drawn at random; weights leave by small magnitude and
    enter by large momentum; a dynamic L2 regulariser pulls the weights to those of the last rewiring.

    Per step: the gradient of beta rho/2 |theta * M - z|^2 is added, except in the first `warmup` of the stage; after
    the optimiser the weights (not their gradients: momentum must know what a masked-out weight would do) are multiplied
    by the masks M. At each of `rewirings(epochs, steps_per_epoch)`, the i-th of R with rate * (1 - i / R), the masks
    become `masks.rewired`, regrown weights start at 0, and z := theta * M.

    ratio: of the weights of `layers` ('all': conv and linear, 'conv': convolutions, the others then stay dense), of
    which floor(ratio * N) are active: exactly with scheme 'irregular'; with 'channel' (whole input channels W[:, c], at
    least one a layer; the first layer, whose channels are the image's, stays dense and counts) no more, and no further
    channel fits.
    scaled: the weights that the first masks leave are divided by the square root of their layer's density, so that its
    outputs keep the variance that the initialisation gives a dense layer. As published they are left as they are,
    which batch norm mends; without it a very sparse network passes no signal on (LeNet on MNIST at a density of 0.01,
    10 epochs: 11 % clean against 98 %).
    Source: DNR (Kundu et al., 2020), algorithm 1 and equations 4 and 6; sparse momentum (Dettmers and Zettlemoyer,
    2019). Here regrowth may fill a layer (the published code stops at 0.99 of what is masked out) and z is also renewed
    where the warm-up ends, as the published warm-up of whole epochs has it.
    """

    ratio: float
    scheme: str = "irregular"
    layers: str = "all"
    rate: float = 0.5
    rho: float = 1e-4
    beta: float = 0.5
    warmup: float = 0.025
    scaled: bool = True
    spare: bool = False  # remove less from layers that are nearly full (`masks.rewired`)

    def setup(self, state: "TrainState") -> None:
        self.budget, self.names = self.room(weights(state.model))
        self.events, self.done = rewirings(state.epochs, state.steps_per_epoch), 0
        tensors = self._tensors(state)
        shapes = [tensor.shape for tensor in tensors]
        units, sizes = ([of(shape, self.scheme) for shape in shapes] for of in (unit_count, unit_size))
        floors = [int(self.scheme == "channel")] * len(units)
        counts = apportion(self.budget, [self.ratio * n for n in units], units, sizes, floors)
        self.masks = random_masks(tensors, counts, self.scheme, state.generator("masks"))
        if self.scaled:
            with torch.no_grad():
                for tensor, count, total in zip(tensors, counts, units, strict=True):
                    tensor.mul_(math.sqrt(total / max(count, 1)))
        self._renew(state)

    def room(self, tensors: Mapping[str, Tensor]) -> tuple[int, list[str]]:
        """Of the weights by name: how many may be active in the masked layers together, and which layers those are.

        Only shapes are read. UserError where that leaves too little to work with.
        """
        counted = {name: w for name, w in tensors.items() if self.layers == "all" or w.ndim == 4}
        total = sum(w.numel() for w in counted.values())
        dense = {next(iter(tensors))} if self.scheme == "channel" else set()
        masked = [name for name in counted if name not in dense]
        if not masked:
            raise UserError(
                f"method.layers={self.layers} with method.scheme={self.scheme} leaves this network no layer to rewire; "
                "choose method.layers=all or method.scheme=irregular."
            )
        kept = sum(counted[name].numel() for name in dense & counted.keys())
        least = kept + sum(unit_size(counted[n].shape, self.scheme) for n in masked) if dense else 1
        budget = math.floor(self.ratio * total + 1e-9)
        if budget < least:
            raise UserError(
                f"method.ratio={self.ratio:g} keeps {budget:,} of the {total:,} weights that method.layers="
                f"{self.layers} counts, and method.scheme={self.scheme} needs {least:,}; give at least "
                f"{math.ceil(1e4 * least / total) / 1e4:g}, or another scheme."
            )
        return budget - kept, masked

    @torch.no_grad()
    def regularise(self, state: "TrainState") -> None:
        strength = self.beta * self.rho
        if strength == 0 or state.step < self.warmup * state.total_steps:
            return
        tensors = self._tensors(state)  # zero outside the masks, as z is
        torch._foreach_add_([w.grad for w in tensors], torch._foreach_sub(tensors, self.copies), alpha=strength)

    @torch.no_grad()
    def after_step(self, state: "TrainState") -> None:
        torch._foreach_mul_(self._tensors(state), self.masks)
        if self.done < len(self.events) and state.step + 1 == self.events[self.done]:
            self._rewire(state)
        elif state.step < self.warmup * state.total_steps <= state.step + 1:
            self._renew(state)

    def _rewire(self, state: "TrainState") -> None:
        tensors, momenta = self._tensors(state), dict(zip(state.names, state.momentum(), strict=True))
        thinned, self.masks = rewired(
            tensors,
            [momenta[name] for name in self.names],
            self.masks,
            self.rate * (1 - self.done / len(self.events)),
            self.budget,
            self.scheme,
            self.spare,
        )
        torch._foreach_mul_(tensors, thinned)
        self.done += 1
        self._renew(state)

    @torch.no_grad()
    def _renew(self, state: "TrainState") -> None:
        """Apply the masks and let z be what they leave."""
        tensors = self._tensors(state)
        torch._foreach_mul_(tensors, self.masks)
        self.copies = [tensor.detach().clone() for tensor in tensors]

    def _tensors(self, state: "TrainState") -> list[nn.Parameter]:
        by_name = dict(zip(state.names, state.weights, strict=True))
        return [by_name[name] for name in self.names]

    def compressed(self, model: nn.Module) -> dict[str, Tensor]:
        tensors = super().compressed(model)
        return tensors | {name: tensors[name] * mask for name, mask in zip(self.names, self.masks, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks, "copies": self.copies, "rewirings": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masks, self.copies, self.done = state["masks"], state["copies"], state["rewirings"]
