"""MobileNetV2 for small images (Sandler et al., 2018; stem and second stage at stride 1, for 32x32 and not 224x224)."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.models.base import MODELS, ModelConfig, conv_bn, pair

STAGES = (  # expansion, channels, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@MODELS.register("mobilenetv2")
@dataclass
class MobileNetV2Config(ModelConfig):
    """17 inverted residual blocks of 16 to 320 channels times `width`, then 1280.

    The variant of CIFAR collections after pytorch-cifar is projection=true, relu6=false.
    """

    projection: bool = False  # blocks of stride 1 get a 1x1 shortcut where channels change, and all blocks expand
    relu6: bool = True

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return MobileNetV2(shape[0], classes, self)

    def names_elsewhere(self) -> dict[str, dict[str, str]]:
        """torchvision's names and pytorch-cifar's, each said to belong to its variant where this network is not it."""
        torchvision = {**pair("stem", "features.0.0", "features.0.1"), "fc": "classifier.1"}
        cifar = {**pair("stem", "conv1", "bn1"), **pair("head", "conv2", "bn2"), "fc": "linear"}
        expansions = [expansion for expansion, _, count, _ in STAGES for _ in range(count)]
        for i, expansion in enumerate(expansions):
            theirs = f"features.{i + 1}.conv"
            inner = ("expand", "depthwise") if expansion > 1 else ("depthwise",)
            for layer, part in enumerate(inner):
                torchvision |= pair(f"blocks.{i}.{part}", f"{theirs}.{layer}.0", f"{theirs}.{layer}.1")
            torchvision |= pair(f"blocks.{i}.project", f"{theirs}.{len(inner)}", f"{theirs}.{len(inner) + 1}")
            for layer, part in enumerate(("expand", "depthwise", "project"), start=1):
                cifar |= pair(f"blocks.{i}.{part}", f"layers.{i}.conv{layer}", f"layers.{i}.bn{layer}")
            cifar |= pair(f"blocks.{i}.shortcut", f"layers.{i}.shortcut.0", f"layers.{i}.shortcut.1")
        last = f"features.{len(expansions) + 1}"
        torchvision |= pair("head", f"{last}.0", f"{last}.1")
        plain = "" if self.relu6 and not self.projection else " (a network of projection=false relu6=true)"
        other = "" if self.projection and not self.relu6 else " (a network of projection=true relu6=false)"
        return {f"torchvision{plain}": torchvision, f"pytorch-cifar{other}": cifar}


class InvertedResidual(nn.Module):
    """1x1 convolution to `expansion` times the channels, 3x3 by channel, 1x1 back, the last without activation.

    x is added where it has the output's shape; with `projection` also, through a 1x1 convolution, at other channels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, cfg: MobileNetV2Config) -> None:
        super().__init__()
        hidden = expansion * inputs
        self.activation = F.relu6 if cfg.relu6 else F.relu
        self.expand = conv_bn(inputs, hidden, 1) if expansion > 1 or cfg.projection else None
        self.depthwise = conv_bn(hidden, hidden, 3, stride, groups=hidden)
        self.project = conv_bn(hidden, outputs, 1)
        self.shortcut: nn.Module | None = None
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        elif stride == 1 and cfg.projection:
            self.shortcut = conv_bn(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else self.activation(self.expand(x))
        result = self.project(self.activation(self.depthwise(hidden)))
        return result if self.shortcut is None else result + self.shortcut(x)


class MobileNetV2(nn.Module):
    """logits [N, classes] of images [N, C, H, W] in [0, 1]; 2,202,560 conv and linear weights with 10 classes."""

    def __init__(self, channels: int, classes: int, cfg: MobileNetV2Config) -> None:
        super().__init__()
        self.normalise = cfg.normalisation()
        self.activation = F.relu6 if cfg.relu6 else F.relu
        inputs, blocks = cfg.scaled(32), []
        self.stem = conv_bn(channels, inputs, 3)
        for expansion, base, count, stride in STAGES:
            for block in range(count):
                outputs = cfg.scaled(base)
                blocks.append(InvertedResidual(inputs, outputs, stride if block == 0 else 1, expansion, cfg))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = conv_bn(inputs, cfg.scaled(1280), 1)
        self.fc = nn.Linear(cfg.scaled(1280), classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.stem(self.normalise(x)))
        x = self.activation(self.head(self.blocks(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
