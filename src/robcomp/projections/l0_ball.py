"""Keep the k largest magnitudes: the l0 projection, over all tensors together or layer by layer."""

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from robcomp.projections.checks import as_list, refuse_count, refuse_nan


@overload
def l0(tensors: Tensor, k: int) -> Tensor: ...


@overload
def l0(tensors: Sequence[Tensor], k: int) -> list[Tensor]: ...


def l0(tensors: Tensor | Sequence[Tensor], k: int) -> Tensor | list[Tensor]:
    """argmin over Z of sum_i |Z_i - W_i|^2 subject to sum_i |Z_i|_0 <= k: one budget for all tensors.

    The k largest |w| of the whole collection stay as they are, the rest become 0. Counts are exact: of equal
    magnitudes at the threshold the earlier tensor wins, and inside a tensor the lower row-major index (whatever the
    memory format). Returns new tensors of the same shapes, dtypes and strides, one for one; the inputs are not touched.

    A single tensor gives a single tensor. Raises ValueError for NaN, or a k that is no whole number from 0 on. Source:
    the projection step of ATMC (Gui et al., NeurIPS 2019) and of iterative hard thresholding (Blumensath and Davies,
    2009).
    """
    given = as_list(tensors)
    _check("l0", given, k)
    result = [t.detach().clone() for t in given]
    l0_(result, k)
    return result[0] if isinstance(tensors, Tensor) else result


@torch.no_grad()
def l0_(tensors: Sequence[Tensor], k: int) -> None:
    """The same as `l0`, in place and unchecked (NaN is not looked for): what a training loop calls after each step.

    On an accelerator nothing here waits for the device.
    """
    if k >= sum(t.numel() for t in tensors):
        return
    for t, keep in zip(tensors, _kept(tensors, k), strict=True):
        t.masked_fill_(~keep, 0)


@overload
def l0_masks(tensors: Tensor, k: int) -> Tensor: ...


@overload
def l0_masks(tensors: Sequence[Tensor], k: int) -> list[Tensor]: ...


@torch.no_grad()
def l0_masks(tensors: Tensor | Sequence[Tensor], k: int) -> Tensor | list[Tensor]:
    """The support of `l0(tensors, k)` as boolean tensors: exactly min(k, non-zeros) entries are True.

    Zeros never count as kept, also where the budget is larger than the number of non-zeros. Raises as `l0`.
    """
    given = as_list(tensors)
    _check("l0_masks", given, k)
    masks = [t != 0 for t in given]
    if k < sum(t.numel() for t in given):
        masks = [keep & mask for mask, keep in zip(masks, _kept(given, k), strict=True)]
    return masks[0] if isinstance(tensors, Tensor) else masks


def l0_per_layer(tensors: Sequence[Tensor], ks: Sequence[int]) -> list[Tensor]:
    """argmin over Z of sum_i |Z_i - W_i|^2 subject to |Z_i|_0 <= k_i for each tensor by itself.

    Ties and errors as in `l0`; also ValueError if there is not one budget per tensor. Source: the irregular pruning of
    Ye et al., ICCV 2019, and of HYDRA (Sehwag et al., 2020).
    """
    if len(ks) != len(tensors):
        raise ValueError(f"l0_per_layer: {len(tensors)} tensors but {len(ks)} budgets; give one budget per tensor")
    for t, k in zip(tensors, ks, strict=True):
        _check("l0_per_layer", [t], k)
    result = [t.detach().clone() for t in tensors]
    for t, k in zip(result, ks, strict=True):
        l0_([t], k)
    return result


def _check(name: str, tensors: Sequence[Tensor], k: int) -> None:
    refuse_count(name, "k", k, "entries to keep")
    refuse_nan(name, *tensors)


def _kept(tensors: Sequence[Tensor], k: int) -> list[Tensor]:
    """Which entries stay, one boolean tensor each; needs k < the number of entries."""
    if k == 0:
        return [torch.zeros_like(t, dtype=torch.bool) for t in tensors]
    flat = _magnitudes(tensors)
    if flat.device.type != "cpu":
        kept = _first_k(flat, _kth_by_topk(flat, k), k)
    else:
        # numpy's vectorised quickselect takes 1.4 ms for 1.1 M entries where torch.topk or kthvalue take 8 to 13 ms.
        split = flat.numel() - k
        flat.numpy().partition(split)
        threshold = flat[split].clone()
        if flat[:split].max() < threshold:  # exactly k reach it: the usual case, and the indices do not matter
            return [t.abs().to(flat.dtype) >= threshold for t in tensors]
        kept = _first_k(_magnitudes(tensors), threshold, k)
    parts = kept.split([t.numel() for t in tensors])
    return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]


def _magnitudes(tensors: Sequence[Tensor]) -> Tensor:
    """All |w|, tensor after tensor in row-major order: a fresh flat tensor in a dtype every selection routine takes."""
    flat = torch.cat([t.detach().reshape(-1) for t in tensors]).abs_()
    return flat if flat.dtype == torch.float64 else flat.float()


def _kth_by_topk(magnitudes: Tensor, k: int) -> Tensor:
    """The k-th largest entry as a 0-d tensor, without waiting for the device (1 <= k <= their number)."""
    below = magnitudes.numel() - k + 1
    if k <= below:
        return magnitudes.topk(k, sorted=False).values.min()
    return magnitudes.topk(below, largest=False, sorted=False).values.max()


def _first_k(magnitudes: Tensor, threshold: Tensor, k: int) -> Tensor:
    """The mask of all entries above the threshold and of as many of those at it, in order, as fit into k."""
    above = magnitudes > threshold
    ties = magnitudes == threshold
    # At threshold 0 every tie is a zero already: all stay, so that a feasible input keeps its bits (-0.0 included).
    room = torch.where(threshold > 0, k - above.sum(), magnitudes.numel())
    return above | (ties & (ties.cumsum(0, dtype=torch.int32) <= room))
