"""Residual networks (He et al., 2016), with the stem of CIFAR collections or that of ImageNet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.errors import UserError, unknown
from robcomp.models.base import MODELS, ModelConfig, conv_bn, every, pair

STEMS = ("cifar", "imagenet")
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


@MODELS.register("resnet")
@dataclass
class ResNetConfig(ModelConfig):
    """ResNet18 and ResNet34 of basic blocks, 64 to 512 channels times `width`; ResNet50 of bottlenecks, up to 2048.

    `stem`: cifar is a 3x3 convolution of stride 1; imagenet one of 7x7 and stride 2, then a 3x3 max pool of stride 2,
    as torchvision's networks have, which with their names and sizes are these.
    """

    depth: int = 18
    stem: str = field(default="cifar", metadata={"added": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth not in BLOCKS:
            raise unknown("model.depth", self.depth, map(str, BLOCKS))
        if self.stem not in STEMS:
            raise unknown("model.stem", self.stem, STEMS)

    @property
    def block(self) -> type["BasicBlock | Bottleneck"]:
        """The kind of block at this depth."""
        return Bottleneck if self.depth >= 50 else BasicBlock

    def check(self, shape: tuple[int, int, int]) -> None:
        super().check(shape)
        if self.stem == "imagenet" and min(shape[1:]) < 32:
            raise UserError(
                f"model.stem=imagenet divides height and width by 32 and needs images of 32x32 pixels or more, not "
                f"{shape[1]}x{shape[2]}; leave model.stem at cifar, or choose another data set."
            )

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

    def advice(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """The stem of the file, where it is the other one."""
        side, stem = (3, "cifar") if self.stem == "imagenet" else (7, "imagenet")
        other = shapes.get("stem.conv.weight", ())[2:] == (side, side)
        return f"its {side}x{side} stem is that of model.stem={stem}; " if other else ""

    def reminder(self, style: str) -> str:
        """torchvision's networks of ImageNet are all trained on normalised images."""
        if self.mean or self.stem != "imagenet" or style == "robcomp":
            return ""
        return (
            "; if it is torchvision's, it expects images normalised by model.mean=[0.485,0.456,0.406] "
            "model.std=[0.229,0.224,0.225]"
        )


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
        imagenet = cfg.stem == "imagenet"
        self.stem = conv_bn(channels, widths[0], 7, 2) if imagenet else conv_bn(channels, widths[0], 3)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if imagenet else nn.Identity()
        inputs, stages = widths[0], []
        for stage, (width, blocks) in enumerate(zip(widths, BLOCKS[cfg.depth], strict=True)):
            for block in range(blocks):
                stages.append(cfg.block(inputs, width, 2 if stage > 0 and block == 0 else 1))
                inputs = cfg.block.expansion * width
        self.blocks = nn.Sequential(*stages)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.pool(F.relu(self.stem(self.normalise(x)))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
