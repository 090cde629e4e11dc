"""Funnel pruning: a budget of non-zeros, and a density that falls strictly from each layer to the next."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor

import torch
from torch import Tensor

from robcomp.projections.apportionment import apportion
from robcomp.projections.checks import refuse_count, refuse_nan
from robcomp.projections.l0_ball import l0_


def funnel(tensors: Sequence[Tensor], k: int) -> list[Tensor]:
    """A near point of {Z: sum_l |Z_l|_0 <= k, and the density |Z_l|_0 / n_l falls strictly from layer to layer}.

    Layers without non-zeros are allowed at the end, where the density cannot fall any more; tensors without entries are
    left out of the order. Zeros of the input are never filled, so a layer of zeros empties all that follow.
    The counts of the layers are `funnel_counts` of those that the l0 projection with budget k has; each layer keeps its
    largest magnitudes, ties to the lower index. Where the l0 projection is feasible it is the result, and the exact
    projection; otherwise, on normal weights of two or three small layers with scales from 0.5 to 2, the squared error
    was that of the best counts in most cases and at most 1.3 times that in all. Feasible inputs come back bit by bit.
    Returns new tensors of the same shapes, dtypes and strides. ValueError for NaN or a negative k.

    Source: Marshall's thesis, section 3.2.1 (the inequality; the order by pooling is ours).
    """
    _check(k)
    refuse_nan("funnel", *tensors)
    result = [t.detach().clone() for t in tensors]
    funnel_(result, k)
    return result


@torch.no_grad()
def funnel_(tensors: Sequence[Tensor], k: int) -> None:
    """The same as `funnel`, in place and unchecked, for a training loop. Waits once for the device."""
    if not tensors:
        return
    trial = [t.clone() for t in tensors]
    l0_(trial, k)
    counted = torch.stack([t.count_nonzero() for t in (*trial, *tensors)]).tolist()
    counts, present = counted[: len(trial)], counted[len(trial) :]
    wanted = funnel_counts(counts, [t.numel() for t in tensors], k, present)
    for t, nearest, count, want in zip(tensors, trial, counts, wanted, strict=True):
        if want == count:
            t.masked_fill_((nearest == 0) & (t != 0), 0)  # what is feasible keeps its -0.0
        else:
            l0_([t], want)


def funnel_counts(
    counts: Sequence[int], totals: Sequence[int], k: int, present: Sequence[int] | None = None
) -> list[int]:
    """Whole numbers c_l near `counts`, at most k together, whose densities c_l / totals_l fall strictly.

    c_l totals_{l+1} > c_{l+1} totals_l, or both are 0; layers of total 0 are left out of the order. present: the
    largest c_l (the layer's non-zeros), all of totals_l if None. Counts that are feasible come back as they are.
    Otherwise, first, the densities are pooled by isotonic regression, weighted by totals_l, with steps of at least
    1 / totals_l, so that they still fall after rounding down; the total of `counts` is kept up to that rounding. Then
    what is left of k goes, layer by layer from the first, to those that rounding put below the plain pooled density,
    and then to the earliest that can take it: afterwards no layer can be given one more, as long as the budget lasts.

    Counts of more than k together are scaled down first. ValueError for a negative k.
    """
    _check(k)
    caps = list(totals if present is None else present)
    result = [0] * len(totals)
    real = [layer for layer, n in enumerate(totals) if n > 0]
    sub = _falling([min(counts[i], caps[i]) for i in real], [totals[i] for i in real], [caps[i] for i in real], k)
    for layer, count in zip(real, sub, strict=True):
        result[layer] = count
    return result


def _falling(counts: list[int], totals: list[int], caps: list[int], k: int) -> list[int]:
    """`funnel_counts` of layers that all have entries."""
    if sum(counts) > k:
        counts = apportion(k, counts, counts)
    if all(_bound(totals, counts, layer) >= c for layer, c in enumerate(counts)):
        return counts
    plain = _pooled([Fraction(c) for c in counts], totals)
    # The regression of densities plus a ramp, less the ramp: densities that fall by at least 1 / totals_l.
    ramp = [Fraction(0)]
    for n in totals[:-1]:
        ramp.append(ramp[-1] + Fraction(1, n))
    ramped = _pooled([c + step * n for c, step, n in zip(counts, ramp, totals, strict=True)], totals)
    result = [0] * len(totals)
    for layer, (density, step, n) in enumerate(zip(ramped, ramp, totals, strict=True)):
        wanted = max(0, floor((density - step) * n))
        result[layer] = min(wanted, caps[layer], _bound(totals, result, layer))
    # Where a step of the ramp goes below zero the clamp to 0 adds to the total, so the last layers give it back.
    excess = max(0, sum(result) - k)
    for layer in reversed(range(len(totals))):
        given = min(excess, result[layer])
        result[layer] -= given
        excess -= given
    left = k - sum(result)
    for reach in ([ceil(density * n) for density, n in zip(plain, totals, strict=True)], caps):
        for layer, most in enumerate(reach):
            room = min(most, caps[layer], _bound(totals, result, layer)) - result[layer]
            given = max(0, min(left, room))
            result[layer] += given
            left -= given
    return result


def _bound(totals: Sequence[int], counts: Sequence[int], layer: int) -> int:
    """The largest count of this layer whose density is below that of the layer before, or 0."""
    if layer == 0:
        return totals[0]
    return max(0, (counts[layer - 1] * totals[layer] - 1) // totals[layer - 1])


def _pooled(counts: Sequence[Fraction], totals: Sequence[int]) -> list[Fraction]:
    """Isotonic regression: the non-increasing densities nearest to counts / totals, weighted by totals.

    Neighbours whose densities rise are pooled to their mean until none do (pool adjacent violators).
    """
    blocks: list[tuple[Fraction, int, int]] = []  # count, total, layers
    for count, total in zip(counts, totals, strict=True):
        block = (count, total, 1)
        while blocks and blocks[-1][0] * block[1] <= block[0] * blocks[-1][1]:
            last = blocks.pop()
            block = (last[0] + block[0], last[1] + block[1], last[2] + block[2])
        blocks.append(block)
    return [count / total for count, total, layers in blocks for _ in range(layers)]


def _check(k: int) -> None:
    refuse_count("funnel", "k", k, "entries to keep")
