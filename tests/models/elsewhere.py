"""Networks as other code bases write them, by their module names; 16x16 colour images, 7 classes."""

from collections.abc import Callable

import torchvision
from torch import Tensor, nn

SHAPE, CLASSES = (3, 16, 16), 7


class CifarBlock(nn.Module):
    """A residual block by the names of pytorch-cifar."""

    def __init__(self, inputs: int, channels: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * channels if bottleneck else channels
        sizes = [(inputs, channels, 1), (channels, channels, 3), (channels, outputs, 1)]
        sizes = sizes if bottleneck else [(inputs, channels, 3), (channels, channels, 3)]
        self.layers = len(sizes)
        for i, (a, b, kernel) in enumerate(sizes, start=1):
            step = stride if i == (2 if bottleneck else 1) else 1
            setattr(self, f"conv{i}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.layers + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y if i == self.layers else y.relu()
        return (y + self.shortcut(x)).relu()


class CifarResNet(nn.Module):
    """A residual network by the names of pytorch-cifar, 4 channels in the first stage."""

    def __init__(self, blocks: list[int], bottleneck: bool) -> None:
        super().__init__()
        self.conv1, self.bn1, inputs = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), 4
        for stage, count in enumerate(blocks):
            layer = []
            for i in range(count):
                layer.append(CifarBlock(inputs, 4 * 2**stage, 2 if stage and not i else 1, bottleneck))
                inputs = 4 * 2**stage * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
        self.linear = nn.Linear(inputs, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))


class WideBasic(nn.Module):
    """A block by the names of WideResNet-pytorch."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.equal = inputs == outputs
        self.convShortcut = None if self.equal else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.equal:
            return x + self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())
        x = self.bn1(x).relu()
        return self.convShortcut(x) + self.conv2(self.bn2(self.conv1(x)).relu())


class WideNet(nn.Module):
    """A wide residual network by the names of WideResNet-pytorch: depth 16, channels 4, then 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, inputs = nn.Conv2d(3, 4, 3, padding=1, bias=False), 4
        for stage, outputs in enumerate((8, 16, 32), start=1):
            block = nn.Module()
            block.layer = nn.Sequential(
                WideBasic(inputs, outputs, 1 if stage == 1 else 2), WideBasic(outputs, outputs, 1)
            )
            setattr(self, f"block{stage}", block)
            inputs = outputs
        self.bn1, self.fc = nn.BatchNorm2d(32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in (self.block1, self.block2, self.block3):
            x = block.layer(x)
        return self.fc(self.bn1(x).relu().mean((2, 3)))


class CifarInverted(nn.Module):
    """A block of MobileNetV2 by the names of pytorch-cifar."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * inputs
        self.conv1, self.bn1 = nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3, self.bn3 = nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.stride, self.shortcut = stride, nn.Sequential()
        if stride == 1 and inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        y = self.bn3(self.conv3(y))
        return y + self.shortcut(x) if self.stride == 1 else y


class CifarMobileNetV2(nn.Module):
    """MobileNetV2 by the names of pytorch-cifar, channels divided by 8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, inputs, layers = nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), 4, []
        plan = [(1, 2, 1, 1), (6, 3, 2, 1), (6, 4, 3, 2), (6, 8, 4, 2), (6, 12, 3, 1), (6, 20, 3, 2), (6, 40, 1, 1)]
        for expansion, outputs, count, stride in plan:
            for i in range(count):
                layers.append(CifarInverted(inputs, outputs, expansion, stride if i == 0 else 1))
                inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.conv2, self.bn2 = nn.Conv2d(40, 160, 1, bias=False), nn.BatchNorm2d(160)
        self.linear = nn.Linear(160, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.bn1(self.conv1(x)).relu())
        return self.linear(self.bn2(self.conv2(x)).relu().mean((2, 3)))


class CifarVGG(nn.Module):
    """VGG16 by the names of pytorch-cifar, or with a classifier of more layers, of which the last is linear."""

    def __init__(self, *before: nn.Module) -> None:
        super().__init__()
        plan = [8, 8, "M", 16, 16, "M", 32, 32, 32, "M", 64, 64, 64, "M", 64, 64, 64]
        self.features = torchvision.models.vgg.make_layers(plan, batch_norm=True)
        linear = nn.Linear(64, CLASSES)
        self.classifier = nn.Sequential(*before, linear) if before else linear

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def torchvision_resnet(make: Callable[..., nn.Module]) -> nn.Module:
    model = make(num_classes=CLASSES)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return model


def torchvision_mobilenet() -> nn.Module:
    model = torchvision.models.mobilenet_v2(num_classes=CLASSES)
    model.features[0][0].stride = model.features[2].conv[1][0].stride = (1, 1)
    return model
