"""Redundant pruning: of filters that nearly repeat one another only the first stays."""

import math
from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor

from robcomp.projections.checks import as_list, refuse_infinity, refuse_nan

BLOCK = 512  # rows of the Gram matrix at a time
BAND = 1e-9  # pairs this near the threshold are measured again: far above the error of a float64 Gram matrix
PAIRS = 4096  # of those at a time


@overload
def redundant(tensors: Tensor, phi: float) -> Tensor: ...


@overload
def redundant(tensors: Sequence[Tensor], phi: float) -> list[Tensor]: ...


def redundant(tensors: Tensor | Sequence[Tensor], phi: float) -> Tensor | list[Tensor]:
    """A point of {Z: no two non-zero filters a, b with |a - b|_2 < phi max(|a|_2, |b|_2)}, by removing filters.

    A filter is a row t[i]; compared are the filters of all tensors with equal shape[1:], inside a tensor as well as
    between tensors. Greedy in network order: a filter too close to one already kept becomes 0. phi in [0, 1] is
    relative, so one number serves all layers; 0 removes nothing. Norms and distances are float64 sums of the direct
    differences, so the inequality holds up to their last bits, and a second application changes nothing. Not the
    nearest such point. Returns new tensors of the same shapes, dtypes and strides, one for one.

    ValueError for NaN, an infinity or a phi outside [0, 1]. Source: Marshall's thesis, section 3.2.1 (there absolute,
    between whole layers, which have no distance where their shapes differ).
    """
    if not 0 <= phi <= 1:
        raise ValueError(f"redundant: phi={phi}; give a relative distance from 0 to 1")
    given = as_list(tensors)
    refuse_nan("redundant", *given)
    for t in given:
        refuse_infinity("redundant", t)
    result = [t.detach().clone() for t in given]
    redundant_(result, phi)
    return result[0] if isinstance(tensors, Tensor) else result


@torch.no_grad()
def redundant_(tensors: Sequence[Tensor], phi: float) -> None:
    """The same as `redundant`, in place and unchecked, for a training loop. Waits for the device."""
    if phi == 0:
        return
    alike: dict[torch.Size, list[Tensor]] = {}
    for t in tensors:
        alike.setdefault(t.shape[1:], []).append(t)
    for shape, members in alike.items():
        rows = torch.cat([t.reshape(t.shape[0], math.prod(shape)).double() for t in members])
        removed = _removed(rows, phi).split([t.shape[0] for t in members])
        for t, drop in zip(members, removed, strict=True):
            t.masked_fill_(drop.view(-1, *[1] * len(shape)), 0)


def _removed(rows: Tensor, phi: float) -> Tensor:
    """Which rows of a float64 matrix [filters, weights] go: boolean, on the device of the matrix."""
    removed = np.zeros(len(rows), dtype=bool)
    present = rows.any(dim=1).cpu().numpy()
    squares = rows.square().sum(dim=1)
    for start in range(0, len(rows), BLOCK):
        stop = min(start + BLOCK, len(rows))
        close = _close(rows, squares, start, stop, phi)
        for i in range(start, stop):
            if present[i] and not removed[i]:
                removed[i + 1 :] |= close[i - start, i + 1 - start :]
    return torch.from_numpy(removed & present).to(rows.device)


def _close(rows: Tensor, squares: Tensor, start: int, stop: int, phi: float) -> np.ndarray:
    """Whether the rows start..stop are too close to the rows from start on: boolean [stop - start, rows - start]."""
    larger = torch.maximum(squares[start:stop, None], squares[None, start:])
    distances = squares[start:stop, None] + squares[None, start:] - 2 * rows[start:stop] @ rows[start:].T
    margin = distances - phi**2 * larger
    close = (margin < 0).cpu().numpy()
    unsure = torch.nonzero((margin.abs() <= BAND * larger).triu(1)).cpu()
    for first, second in (pairs.T for pairs in unsure.split(PAIRS)):
        a, b = (rows[start + index.to(rows.device)].cpu().numpy() for index in (first, second))
        norms = np.maximum(np.square(a).sum(axis=1), np.square(b).sum(axis=1))
        close[first.numpy(), second.numpy()] = np.square(a - b).sum(axis=1) < phi**2 * norms
    return close
