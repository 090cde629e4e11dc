"""What every public projection refuses at its door."""

import torch
from torch import Tensor


def refuse_nan(name: str, *tensors: Tensor) -> None:
    """Raise ValueError naming the projection if a tensor holds NaN. Costs one host synchronisation."""
    if any(bool(torch.isnan(t).any()) for t in tensors):
        raise ValueError(f"{name}: input holds NaN")


def refuse_infinity(name: str, tensor: Tensor) -> None:
    """Raise ValueError naming the projection if the tensor holds an infinity. Costs one host synchronisation."""
    if bool(torch.isinf(tensor).any()):
        raise ValueError(f"{name}: input holds infinity")
