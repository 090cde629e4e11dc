"""Residual networks for small images (He et al., 2016; CIFAR stem: 3x3 convolution, stride 1, no pooling)."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.errors import unknown
from robcomp.models.base import MODELS, ModelConfig, conv_bn

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@MODELS.register("resnet")
@dataclass
class ResNetConfig(ModelConfig):
    """ResNet18 and ResNet34 of basic blocks, 64 to 512 channels times `width`."""

    depth: int = 18

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth not in BLOCKS:
            raise unknown("model.depth", self.depth, map(str, BLOCKS))

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return ResNet(shape[0], classes, self)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where stride or channels change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(inputs, outputs, 3, stride)
        self.conv2 = conv_bn(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """logits [N, classes] of images [N, C, H, W] in [0, 1]; conv and linear weights with 10 classes: 34: 21,265,088."""

    def __init__(self, channels: int, classes: int, cfg: ResNetConfig) -> None:
        super().__init__()
        widths = [cfg.scaled(c) for c in (64, 128, 256, 512)]
        self.stem = conv_bn(channels, widths[0], 3)
        inputs, stages = widths[0], []
        for stage, (outputs, blocks) in enumerate(zip(widths, BLOCKS[cfg.depth], strict=True)):
            for block in range(blocks):
                stages.append(BasicBlock(inputs, outputs, 2 if stage > 0 and block == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.stem(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
