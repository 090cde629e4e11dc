"""What every network is to the rest of robcomp."""

from dataclasses import dataclass

from torch import nn

from robcomp.errors import UserError
from robcomp.registry import Registry

MODELS: Registry[type["ModelConfig"]] = Registry("model")


@dataclass
class ModelConfig:
    """A network's settings; `build` makes it. logits = model(x), x float32 [N, C, H, W] in [0, 1]."""

    name: str = ""
    width: float = 1.0  # multiplies every hidden channel count
    channels: int | None = None  # input channels; null: those of the data set

    def __post_init__(self) -> None:
        if not 0 < self.width <= 64:
            raise UserError(f"model.width={self.width:g} is out of range; allowed is (0, 64].")

    def scaled(self, channels: int) -> int:
        """`channels` times the width multiplier, at least 1."""
        return max(1, round(channels * self.width))

    def check(self, shape: tuple[int, int, int]) -> None:
        """UserError when images of `shape` [C, H, W] do not fit this network."""
        if self.channels not in (None, shape[0]):
            raise UserError(
                f"model.channels={self.channels} does not fit images of {shape[0]} channels; "
                f"set model.channels={shape[0]} (or null), or choose another data set."
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """The network with fresh weights from torch's global generator (seed it first)."""
        raise TypeError(f"{type(self).__name__} defines no build()")


class ConvBN(nn.Sequential):
    """A bias-free convolution followed by its batch norm: the pair that can be folded into one convolution."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> ConvBN:
    """`ConvBN` with 'same' zero padding for odd kernels."""
    return ConvBN(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False))
