"""Residual networks for small images (He et al., 2016; CIFAR stem: 3x3 convolution, stride 1, no pooling)."""

from dataclasses import dataclass
from itertools import product

from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.errors import unknown
from robcomp.models.base import MODELS, ModelConfig, conv_bn, every, pair

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


@MODELS.register("resnet")
@dataclass
class ResNetConfig(ModelConfig):
    """ResNet18 and ResNet34 of basic blocks, 64 to 512 channels times `width`; ResNet50 of bottlenecks, up to 2048."""

    depth: int = 18

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth not in BLOCKS:
            raise unknown("model.depth", self.depth, map(str, BLOCKS))

    @property
    def block(self) -> type["BasicBlock | Bottleneck"]:
        """The kind of block at this depth."""
        return Bottleneck if self.depth >= 50 else BasicBlock

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return ResNet(shape[0], classes, self)

    def names_elsewhere(self) -> dict[str, dict[str, str]]:
        """torchvision's names and those of CIFAR collections after pytorch-cifar, which differ in two places."""
        styles = {}
        for shortcut, linear in product(("downsample", "shortcut"), ("fc", "linear")):
            names = {**pair("stem", "conv1", "bn1"), "fc": linear}
            places = [(stage, block) for stage, count in enumerate(BLOCKS[self.depth]) for block in range(count)]
            for ours, (stage, block) in enumerate(places):
                theirs = f"layer{stage + 1}.{block}"
                for i in range(1, self.block.convolutions + 1):
                    names |= pair(f"blocks.{ours}.conv{i}", f"{theirs}.conv{i}", f"{theirs}.bn{i}")
                names |= pair(f"blocks.{ours}.shortcut", f"{theirs}.{shortcut}.0", f"{theirs}.{shortcut}.1")
            base = "torchvision" if shortcut == "downsample" else "pytorch-cifar"
            usual = (shortcut, linear) in (("downsample", "fc"), ("shortcut", "linear"))
            styles[base if usual else f"{base} (but {linear})"] = names
        return styles


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where stride or channels change."""

    expansion = 1
    convolutions = 2

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(inputs, channels, 3, stride)
        self.conv2 = conv_bn(channels, channels, 3)
        self.stride, self.shortcut = stride, _shortcut(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(every(x, self.stride)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions, the last to four times the channels, and a shortcut as above."""

    expansion = 4
    convolutions = 3

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * channels
        self.conv1 = conv_bn(inputs, channels, 1)
        self.conv2 = conv_bn(channels, channels, 3, stride)
        self.conv3 = conv_bn(channels, outputs, 1)
        self.stride, self.shortcut = stride, _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(change + self.shortcut(every(x, self.stride)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """What every `stride`-th pixel of x goes through."""
    return nn.Identity() if stride == 1 and inputs == outputs else conv_bn(inputs, outputs, 1)


class ResNet(nn.Module):
    """logits [N, classes] of images [N, C, H, W] in [0, 1]; conv and linear weights with 10 classes: 34: 21,265,088."""

    def __init__(self, channels: int, classes: int, cfg: ResNetConfig) -> None:
        super().__init__()
        widths = [cfg.scaled(c) for c in (64, 128, 256, 512)]
        self.normalise = cfg.normalisation()
        self.stem = conv_bn(channels, widths[0], 3)
        inputs, stages = widths[0], []
        for stage, (width, blocks) in enumerate(zip(widths, BLOCKS[cfg.depth], strict=True)):
            for block in range(blocks):
                stages.append(cfg.block(inputs, width, 2 if stage > 0 and block == 0 else 1))
                inputs = cfg.block.expansion * width
        self.blocks = nn.Sequential(*stages)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.stem(self.normalise(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
