"""Structured sparsity: the groups of weights of a layer (filters, columns, channels), and the nearest with few of them.

A weight has the shape [out, in, kh, kw] or [out, in]; a vector counts as one column. The schemes:
"filter": W[i], a row of the out x (in kh kw) matrix; "column": a column of that matrix, one position of one input
channel; "channel": W[:, c], all that reads input channel c.
Source: Ye et al., ICCV 2019 (filters and columns); Kundu et al., DNR, 2020 (channels).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robcomp.projections.checks import refuse_count, refuse_nan


def group_count(shape: Sequence[int], scheme: str) -> int:
    """How many groups a weight of this shape has. ValueError for an unknown scheme."""
    return math.prod(_index(shape, scheme))


def group_size(shape: Sequence[int], scheme: str) -> int:
    """How many weights one group of a weight of this shape has. ValueError for an unknown scheme."""
    return math.prod(n for n, groups in zip(shape, _index(shape, scheme), strict=True) if n != groups)


@torch.no_grad()
def group_norms(weight: Tensor, scheme: str) -> Tensor:
    """The squared L2 norm of each group, [groups], in float64 and in the same order for every memory format."""
    squares = weight.detach().contiguous().double().square()
    return squares.sum_to_size(_index(weight.shape, scheme)).reshape(-1)


def expand(flags: Tensor, shape: Sequence[int], scheme: str) -> Tensor:
    """One flag per group, [groups] boolean, written to every weight of the group: a new boolean tensor of `shape`.

    ValueError where there is not one flag per group.
    """
    if flags.shape != (group_count(shape, scheme),):
        given, wanted = tuple(flags.shape), group_count(shape, scheme)
        raise ValueError(
            f"expand: flags have the shape {given}; a weight {tuple(shape)} has {wanted} groups ({scheme})"
        )
    return flags.view(_index(shape, scheme)).expand(tuple(shape)).clone(memory_format=torch.contiguous_format)


def group_mask(weight: Tensor, scheme: str, keep: int) -> Tensor:
    """Boolean, like weight: True in the `keep` groups of largest norm, exactly min(keep, groups) of them.

    Ties go to the lower index; a group of zeros counts like any other. Nothing here waits for an accelerator, so NaN is
    not looked for. ValueError for a negative keep or an unknown scheme.
    """
    refuse_count("group_mask", "keep", keep, "groups to keep")
    norms = group_norms(weight, scheme)
    flags = torch.zeros_like(norms, dtype=torch.bool)
    flags[norms.argsort(descending=True, stable=True)[:keep]] = True
    return expand(flags, weight.shape, scheme)


def groups(weight: Tensor, scheme: str, keep: int) -> Tensor:
    """argmin over Z of |Z - W|^2 subject to at most `keep` groups of Z having non-zeros.

    The groups of largest norm stay as they are (ties to the lower index), the rest become 0. Returns a new tensor of
    the same shape, dtype and strides. ValueError for NaN, a negative keep or an unknown scheme.
    """
    refuse_nan("groups", weight)
    result = weight.detach().clone()
    # Only non-zeros are written, so that a feasible input keeps its bits (-0.0 included).
    return result.masked_fill_(~group_mask(result, scheme, keep) & (result != 0), 0)


def _index(shape: Sequence[int], scheme: str) -> tuple[int, ...]:
    """The shape in which one number per group broadcasts against the weight."""
    rest = [1] * (len(shape) - 1)
    if scheme == "filter":
        return (shape[0], *rest)
    if scheme == "column":
        return (1, *shape[1:])
    if scheme == "channel":
        return (1, *shape[1:2], *rest[1:])
    raise ValueError(f"groups: scheme={scheme!r}; give filter, column or channel")
