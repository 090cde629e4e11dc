"""What every network is to the rest of robcomp, and the modules that several of them share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from robcomp.errors import UserError
from robcomp.registry import Registry

MODELS: Registry[type["ModelConfig"]] = Registry("model")


@dataclass
class ModelConfig:
    """A network's settings; `build` makes it. logits = model(x), x float32 [N, C, H, W] in [0, 1]."""

    name: str = ""
    width: float = 1.0  # multiplies every hidden channel count
    channels: int | None = None  # input channels; null: those of the data set
    mean: list[float] = field(default_factory=list)  # the network computes on (x - mean) / std, one number a channel
    std: list[float] = field(default_factory=list)
    weights: str | None = None  # a file of trained weights to start from; `build` does not read it
    # the last layer of that file is left out, and this network's own starts from scratch: for other classes
    new_head: bool = field(default=False, kw_only=True, metadata={"added": True})

    kind: ClassVar[str]  # the registered name
    # beginnings of names in foreign files that no network computes with
    unused_elsewhere: ClassVar[tuple[str, ...]] = ()
    # settings by which networks of the same weights may differ and still give the same logits
    incidental: ClassVar[tuple[str, ...]] = ("name", "channels", "weights", "new_head")

    def __post_init__(self) -> None:
        if not 0 < self.width <= 64:
            raise UserError(f"model.width={self.width:g} is out of range; allowed is (0, 64].")
        if len(self.mean) != len(self.std):
            raise UserError(
                f"model.mean has {len(self.mean)} numbers and model.std {len(self.std)}; "
                "give one of each per channel, or neither."
            )
        if not all(0 <= mean <= 1 for mean in self.mean):
            raise UserError(
                f"model.mean={self.mean} is out of range; images are in [0, 1], so divide a mean of grey levels by 255."
            )
        if not all(0 < std < math.inf for std in self.std):
            raise UserError(f"model.std={self.std} is out of range; give finite numbers above 0.")
        if self.new_head and not self.weights:
            raise UserError(
                "model.new_head=true leaves out the last layer of model.weights, which is not given; give "
                "model.weights=FILE, or leave model.new_head out: every layer is new then."
            )

    def scaled(self, channels: int) -> int:
        """`channels` times the width multiplier, at least 1; UserError where less than half a channel is left."""
        if channels * self.width < 0.5:
            raise UserError(
                f"model.width={self.width:g} leaves none of a layer's {channels} channels; give at least "
                f"{math.ceil(500 / channels) / 1000:g}."
            )
        return max(1, round(channels * self.width))

    def normalisation(self) -> nn.Module:
        """The layer that every network applies first: `Normalise`, or the identity where no mean is given."""
        return Normalise(self.mean, self.std) if self.mean else nn.Identity()

    def check(self, shape: tuple[int, int, int]) -> None:
        """UserError when images of `shape` [C, H, W] do not fit this network."""
        if self.channels not in (None, shape[0]):
            raise UserError(
                f"model.channels={self.channels} does not fit images of {shape[0]} channels; "
                f"set model.channels={shape[0]} (or null), or choose another data set."
            )
        if self.mean and len(self.mean) != shape[0]:
            raise UserError(
                f"model.mean and model.std have {len(self.mean)} numbers for images of {shape[0]} channels; "
                "give one of each per channel, or [] for neither."
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """The network with fresh weights from torch's global generator (seed it first)."""
        raise TypeError(f"{type(self).__name__} defines no build()")

    def names_elsewhere(self) -> dict[str, dict[str, str]]:
        """The module names of other code bases: {code base: {path of our module: path of theirs}}.

        Paths that the network lacks are ignored; a layer of ours that is not named has no counterpart there.
        """
        return {}

    def advice(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """What to set for a file that does not fit, ending in '; ', or nothing.

        `shapes`: those of the file, by our names, where they differ from this network's.
        """
        return ""

    def reminder(self, style: str) -> str:
        """What a file that fits by the names of `style` cannot tell and its user should know, beginning in '; '."""
        return ""


class ConvBN(nn.Sequential):
    """A bias-free convolution followed by its batch norm: the pair that can be folded into one convolution."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> ConvBN:
    """`ConvBN` with 'same' zero padding for odd kernels."""
    return ConvBN(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False))


def every(x: Tensor, stride: int) -> Tensor:
    """Every `stride`-th pixel of images [N, C, H, W]: a 1x1 convolution of that stride is this, then one of stride 1.

    Networks take their shortcuts so because oneDNN up to 3.14 gets the weight gradient of strided 1x1 convolutions with
    few channels wrong, or crashes, in channels_last on the CPU (uxlfoundation/oneDNN#6035).
    """
    return x if stride == 1 else x[:, :, ::stride, ::stride]


def pair(ours: str, conv: str, bn: str) -> dict[str, str]:
    """The entries of `names_elsewhere` for the `ConvBN` at `ours`."""
    return {f"{ours}.conv": conv, f"{ours}.bn": bn}


class Normalise(nn.Module):
    """(x - mean) / std by channel, computed in float32 and returned in x's dtype; no part of the state dict."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        for name, numbers in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return ((x.float() - self.mean) / self.std).to(x.dtype)


class Dropout(nn.Module):
    """In train mode: each number becomes 0 with probability `p`, else is divided by 1 - p (Srivastava et al., 2014).

    The mask is drawn from `random`, which the training loop sets and seeds; None is torch's global generator.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.random: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape, generator=self.random, device=x.device) >= self.p
        return x * kept / (1 - self.p)
