"""The nets that tests of rewiring share."""

import torch
from tiny import CLASSES
from torch import nn

from robcomp.models.base import conv_bn
from robcomp.trainers.state import TrainState


def channels_net(seed: int = 0) -> nn.Sequential:
    """Three convolutions with batch norm and a linear layer on `tiny` images; channels 1, 6, 5, 4."""
    torch.manual_seed(seed)
    convolutions = [conv_bn(a, b, 3) for a, b in ((1, 6), (6, 5), (5, 4))]
    layers = [layer for conv in convolutions for layer in (conv, nn.ReLU(), nn.MaxPool2d(2))]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, CLASSES))


def active(state: TrainState) -> list[int]:
    """The active weights of each masked layer."""
    return [int(mask.sum()) for mask in state.compression.masks]
