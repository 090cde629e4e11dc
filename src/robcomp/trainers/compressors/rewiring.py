"""A sparse network from the first step on, whose connections move: rewiring by magnitude and momentum (DNR)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robcomp.errors import UserError
from robcomp.projections import apportion
from robcomp.trainers.compressor import TRANSIENT, Compressor
from robcomp.trainers.compressors.masks import random_masks, rewired, unit_count, unit_size
from robcomp.trainers.state import gradients

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState

LAYERS = ("all", "conv")
MIN_REWIRINGS = 20  # rewirings, however short the stage


def rewirings(epochs: int, steps_per_epoch: int) -> list[int]:
    """After how many steps each rewiring comes, never after the last step: the final weights have been trained since.

    A stage of more than 20 epochs is rewired at the end of every epoch but the last, as published. A shorter one is
    rewired 20 times at evenly spaced steps, or after every step where it has fewer.
    """
    if epochs > MIN_REWIRINGS:
        return [epoch * steps_per_epoch for epoch in range(1, epochs)]
    total = epochs * steps_per_epoch
    count = min(MIN_REWIRINGS, total - 1)
    return [total * (i + 1) // (count + 1) for i in range(count)]


@dataclass
class RewiringState:
    """Of the masked layers: names, masks M, the copies z of the last rewiring; how many weights may be active in them.

    events: after how many steps each rewiring comes; done: how many of them there have been.
    """

    names: list[str]
    budget: int
    events: list[int]
    masks: list[Tensor]
    copies: list[Tensor]
    tensors: list[Tensor] = field(metadata=TRANSIENT)
    done: int = 0

    @torch.no_grad()
    def renew(self) -> None:
        """Apply the masks and let z be what they leave."""
        torch._foreach_mul_(self.tensors, self.masks)
        self.copies = [tensor.detach().clone() for tensor in self.tensors]


@dataclass(frozen=True)
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

    kind: ClassVar[str] = "rewiring"

    ratio: float
    scheme: str = "irregular"
    layers: str = "all"
    rate: float = 0.5
    rho: float = 1e-4
    beta: float = 0.5
    warmup: float = 0.025
    scaled: bool = True
    spare: bool = False  # remove less from layers that are nearly full (`masks.rewired`)

    def start(self, state: "TrainState") -> RewiringState:
        by_name = dict(zip(state.names, state.weights, strict=True))
        budget, names = self.room(by_name)
        tensors = [by_name[name] for name in names]
        shapes = [tensor.shape for tensor in tensors]
        units, sizes = ([of(shape, self.scheme) for shape in shapes] for of in (unit_count, unit_size))
        floors = [int(self.scheme == "channel")] * len(units)
        counts = apportion(budget, [self.ratio * n for n in units], units, sizes, floors)
        masks = random_masks(tensors, counts, self.scheme, state.generator("masks"))
        if self.scaled:
            with torch.no_grad():
                for tensor, count, total in zip(tensors, counts, units, strict=True):
                    tensor.mul_(math.sqrt(total / max(count, 1)))
        events = rewirings(state.epochs, state.steps_per_epoch)
        rewired_layers = RewiringState(names, budget, events, masks, [], tensors)
        rewired_layers.renew()
        return rewired_layers

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
        layers: RewiringState = state.compression  # zero outside the masks, as z is
        slopes = gradients(layers.tensors)
        torch._foreach_add_(slopes, torch._foreach_sub(layers.tensors, layers.copies), alpha=strength)

    @torch.no_grad()
    def after_step(self, state: "TrainState") -> None:
        layers: RewiringState = state.compression
        torch._foreach_mul_(layers.tensors, layers.masks)
        if layers.done < len(layers.events) and state.step + 1 == layers.events[layers.done]:
            self.rewire(state)
        elif state.step < self.warmup * state.total_steps <= state.step + 1:
            layers.renew()

    def rewire(self, state: "TrainState") -> None:
        """One rewiring of all masked layers, now."""
        layers: RewiringState = state.compression
        momenta = dict(zip(state.names, state.momentum(), strict=True))
        thinned, layers.masks = rewired(
            layers.tensors,
            [momenta[name] for name in layers.names],
            layers.masks,
            self.rate * (1 - layers.done / len(layers.events)),
            layers.budget,
            self.scheme,
            self.spare,
        )
        with torch.no_grad():
            torch._foreach_mul_(layers.tensors, thinned)
        layers.done += 1
        layers.renew()

    def compressed(self, state: "TrainState") -> dict[str, Tensor]:
        tensors, layers = super().compressed(state), state.compression
        return tensors | {name: tensors[name] * mask for name, mask in zip(layers.names, layers.masks, strict=True)}
