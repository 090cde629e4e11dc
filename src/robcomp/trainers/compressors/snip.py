"""Pruning at initialisation by connection sensitivity (SNIP)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.data import to_float
from robcomp.trainers.compressor import budget
from robcomp.trainers.compressors.masks import largest
from robcomp.trainers.compressors.sparsity import MaskCompressor

if TYPE_CHECKING:
    from robcomp.trainers.state import TrainState


@dataclass(frozen=True)
class Snip(MaskCompressor):
    """Keep the floor(ratio * N) weights of largest connection sensitivity at the start, once and for all.

    The sensitivity is |g * w|, g the gradient of the cross-entropy over `images` clean training images without
    augmentation (all of them where there are fewer); all layers are ranked together. Weights without a gradient count
    too, so exactly floor(ratio * N) stay; of equal sensitivities the earlier layer wins, then the lower index.
    Source: SNIP (Lee et al., ICLR 2019), equation 5 and algorithm 1; there one batch of 100 to 128 images is used.
    """

    kind: ClassVar[str] = "snip"

    ratio: float
    images: int = 1000

    def masks(self, state: "TrainState") -> list[Tensor]:
        scores = [saliency.reshape(-1) for saliency in sensitivities(state, self.images)]
        flat = torch.cat(scores)
        kept = largest(flat, torch.ones_like(flat, dtype=torch.bool), budget(state.model, self.ratio))
        parts = kept.split([len(score) for score in scores])
        return [
            torch.empty_like(weight, dtype=torch.bool).copy_(part.view(weight.shape))
            for weight, part in zip(state.weights, parts, strict=True)
        ]


def sensitivities(state: "TrainState", images: int) -> list[Tensor]:
    """|g * w| of every conv and linear weight, in the order and shapes of `state.weights`; leaves no trace in `state`.

    g sums over batches of at most `state.batch_size` images, of nearly equal size; batch norm computes with the
    statistics of each batch, since those that it keeps for evaluation mean nothing before training.
    """
    random = state.generator("snip")
    index = torch.randperm(len(state.data.train), generator=random, device=state.env.device)[:images]
    gradients = [torch.zeros_like(weight) for weight in state.weights]
    with _scoring(state.model):
        for batch in index.tensor_split(math.ceil(len(index) / state.batch_size)):
            x = to_float(state.data.train.images[batch]).contiguous(memory_format=state.env.memory_format)
            loss = F.cross_entropy(state.forward(x), state.data.train.labels[batch], reduction="sum")
            torch._foreach_add_(gradients, torch.autograd.grad(loss, state.weights))
    return [(gradient * weight.detach()).abs() for gradient, weight in zip(gradients, state.weights, strict=True)]


@contextmanager
def _scoring(model: nn.Module) -> Iterator[None]:
    """Inside, batch norm uses each batch's statistics and dropout does nothing; modes and buffers are put back."""
    training = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        for module in training:
            module.training = isinstance(module, nn.modules.batchnorm._BatchNorm)
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        with torch.no_grad():
            for buffer, kept in buffers:
                buffer.copy_(kept)
