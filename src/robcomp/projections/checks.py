"""What every public projection refuses at its door."""

from collections.abc import Sequence
from typing import SupportsIndex

import torch
from torch import Tensor


def refuse_nan(name: str, *tensors: Tensor) -> None:
    """Raise ValueError naming the projection if a tensor is none, or holds NaN. Costs one host synchronisation."""
    for t in tensors:
        if not isinstance(t, Tensor):
            raise ValueError(f"{name}: input is a {type(t).__name__}; give torch tensors (torch.as_tensor)")
    if any(bool(torch.isnan(t).any()) for t in tensors):
        raise ValueError(f"{name}: input holds NaN")


def refuse_infinity(name: str, tensor: Tensor) -> None:
    """Raise ValueError naming the projection if the tensor holds an infinity. Costs one host synchronisation."""
    if bool(torch.isinf(tensor).any()):
        raise ValueError(f"{name}: input holds infinity")


def refuse_count(name: str, key: str, count: int, what: str) -> None:
    """Raise ValueError naming the projection unless `count`, given as `key`, is a whole number from 0 on."""
    if not isinstance(count, SupportsIndex) or isinstance(count, bool):
        raise ValueError(f"{name}: {key}={count!r} is not a whole number; give the number of {what}")
    if count < 0:
        raise ValueError(f"{name}: {key}={count} is negative; give the number of {what}")


def as_list(tensors: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """A single tensor as the only one of a list."""
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)
