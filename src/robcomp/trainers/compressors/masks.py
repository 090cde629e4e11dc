"""Masks over a layer's units, which are its weights (irregular) or its whole input channels W[:, c] (channel): drawn at
random, thinned by magnitude, regrown by momentum. Pure functions on tensors.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robcomp.projections import apportion, expand, group_count, group_norms, group_size

SCHEMES = ("irregular", "channel")
NEARLY_FULL = 0.2  # below this share of masked-out weights `rewired(spare=True)` removes with care


def unit_count(shape: Sequence[int], scheme: str) -> int:
    """How many units a weight of `shape` [out, in, ...] has."""
    return math.prod(shape) if scheme == "irregular" else group_count(shape, scheme)


def unit_size(shape: Sequence[int], scheme: str) -> int:
    """How many weights are in one unit."""
    return 1 if scheme == "irregular" else group_size(shape, scheme)


def magnitudes(tensor: Tensor, scheme: str) -> Tensor:
    """|w| of each weight in row-major order, or the squared Frobenius norm of each channel: [units]."""
    return tensor.detach().abs().reshape(-1) if scheme == "irregular" else group_norms(tensor.detach(), scheme)


def flags(mask: Tensor, scheme: str) -> Tensor:
    """Which units a mask in the weight's shape keeps: boolean [units], the inverse of `mask_like`."""
    return mask.reshape(-1) if scheme == "irregular" else mask[0].reshape(mask.shape[1], -1)[:, 0]


def mask_like(weight: Tensor, kept: Tensor, scheme: str) -> Tensor:
    """The boolean mask of the weight's shape and memory format that keeps the units flagged in `kept`."""
    mask = kept.reshape(weight.shape) if scheme == "irregular" else expand(kept, weight.shape, scheme)
    return torch.empty_like(weight, dtype=torch.bool).copy_(mask)


def largest(scores: Tensor, eligible: Tensor, count: int) -> Tensor:
    """Boolean [n]: the `count` largest of `scores` (not negative) among the `eligible`, ties to the lower index.

    Zeros count like any other score, so exactly `count` are chosen wherever so many are eligible.
    """
    if count == 0:
        return torch.zeros_like(eligible)
    values = scores.masked_fill(~eligible, -1)
    threshold = values.topk(count, sorted=False).values.min()  # an eighth of the time of a stable sort
    above, ties = values > threshold, values == threshold
    return above | (ties & eligible & (ties.cumsum(0, dtype=torch.int32) <= count - above.sum()))


def random_masks(
    weights: Sequence[Tensor], counts: Sequence[int], scheme: str, random: torch.Generator
) -> list[Tensor]:
    """Masks that keep counts[l] units of layer l, every choice equally likely; `random` on the weights' device."""
    masks = []
    for weight, count in zip(weights, counts, strict=True):
        units = unit_count(weight.shape, scheme)
        kept = torch.zeros(units, dtype=torch.bool, device=weight.device)
        kept[torch.randperm(units, generator=random, device=weight.device)[:count]] = True
        masks.append(mask_like(weight, kept, scheme))
    return masks


def shares(momenta: Sequence[Tensor], masks: Sequence[Tensor]) -> list[float]:
    """Mean |mu| over each layer's active weights, divided by the sum over the layers.

    A layer without an active weight counts with the mean over all of it, so that it can open again. Where every
    momentum is zero (or one is not finite) the shares are proportional to the layers' sizes.
    """
    means = []
    for momentum, mask in zip(momenta, masks, strict=True):
        size = momentum.abs()
        active = (size * mask).sum(dtype=torch.float64) / mask.sum()
        means.append(torch.where(mask.any(), active, size.mean(dtype=torch.float64)))
    contributions = torch.stack(means).tolist()
    total = sum(contributions)
    if not (0 < total < math.inf):
        contributions = [float(mask.numel()) for mask in masks]
        total = sum(contributions)
    return [contribution / total for contribution in contributions]


def rewired(
    weights: Sequence[Tensor],
    momenta: Sequence[Tensor],
    masks: Sequence[Tensor],
    rate: float,
    budget: int,
    scheme: str,
    spare: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """One rewiring: the masks after the removal, and the masks after the regrowth; nothing is changed in place.

    From each layer the ceil(rate * active) active units of smallest magnitude go, but never all of them. What is then
    free of `budget` (weights over all layers) is shared out by `shares`, taken before the removal, and each layer
    regrows the masked-out units of largest momentum, those just removed included. Units without any momentum, which
    would stay at zero, come last in all layers. Irregular: the budget is used up exactly. Channel: no further channel
    of any layer fits. `spare`: a layer with less than a fifth masked out and an above-average share removes at no
    higher rate than that part.
    Source: DNR (Kundu et al., 2020), algorithm 1, lines 17 to 23; `spare`: published code of sparse momentum.
    """
    parts = shares(momenta, masks)
    kept = [flags(mask, scheme) for mask in masks]
    sizes = [unit_size(weight.shape, scheme) for weight in weights]
    active = torch.stack([flag.sum() for flag in kept]).tolist()
    left = []
    for count, flag, part in zip(active, kept, parts, strict=True):
        careful = spare and part * len(parts) > 1 and 1 - count / len(flag) < NEARLY_FULL
        removed = math.ceil(count * (min(rate, 1 - count / len(flag)) if careful else rate) - 1e-9)
        left.append(max(count - removed, min(count, 1)))
    stays = [largest(magnitudes(w, scheme), flag, count) for w, flag, count in zip(weights, kept, left, strict=True)]
    norms = [magnitudes(momentum, scheme) for momentum in momenta]
    free = budget - sum(count * size for count, size in zip(left, sizes, strict=True))
    ideal = [part * free / size for part, size in zip(parts, sizes, strict=True)]
    moving = torch.stack([((norm > 0) & ~stay).sum() for norm, stay in zip(norms, stays, strict=True)]).tolist()
    caps = [len(stay) - count for stay, count in zip(stays, left, strict=True)]
    floors = apportion(free, ideal, list(map(min, moving, caps)), sizes)  # NaN weights, of which none stays, move more
    counts = apportion(free, ideal, caps, sizes, floors)
    grown = [stay | largest(norm, ~stay, count) for norm, stay, count in zip(norms, stays, counts, strict=True)]
    thinned, regrown = (
        [mask_like(weight, flag, scheme) for weight, flag in zip(weights, of, strict=True)] for of in (stays, grown)
    )
    return thinned, regrown
