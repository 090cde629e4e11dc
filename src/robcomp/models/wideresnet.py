"""Wide residual networks (Zagoruyko and Komodakis, 2016): few layers, many channels, pre-activation blocks."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.errors import UserError
from robcomp.models.base import MODELS, Dropout, ModelConfig, conv_bn, every, pair


@MODELS.register("wideresnet")
@dataclass
class WideResNetConfig(ModelConfig):
    """WRN-depth-widen: three stages of (depth - 4) / 6 blocks with 16, 32 and 64 channels times `widen` and `width`."""

    depth: int = 16
    widen: int = 8
    dropout: float = 0.0  # between the two convolutions of each block

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 10 or self.depth % 6 != 4:
            raise UserError(f"model.depth={self.depth} is not 6n + 4; choose 10, 16, 22, 28, 34, 40, ....")
        if not 1 <= self.widen <= 64:
            raise UserError(f"model.widen={self.widen} is out of range; 1 to 64 are allowed.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout={self.dropout:g} is out of range; allowed is [0, 1).")

    @property
    def blocks(self) -> int:
        """Blocks in each of the three stages."""
        return (self.depth - 4) // 6

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return WideResNet(shape[0], classes, self)

    def names_elsewhere(self) -> dict[str, dict[str, str]]:
        """The names of WideResNet-pytorch, which TRADES, HYDRA and RobustBench took over."""
        names = {"stem": "conv1", "bn": "bn1", "fc": "fc"}
        for ours in range(3 * self.blocks):
            stage, block = divmod(ours, self.blocks)
            theirs = f"block{stage + 1}.layer.{block}"
            names |= {f"blocks.{ours}.bn": f"{theirs}.bn1", f"blocks.{ours}.conv2": f"{theirs}.conv2"}
            names |= pair(f"blocks.{ours}.conv1", f"{theirs}.conv1", f"{theirs}.bn2")
            names[f"blocks.{ours}.shortcut"] = f"{theirs}.convShortcut"
        return {"WideResNet-pytorch": names}

    unused_elsewhere = ("sub_block1.",)  # a block that TRADES and HYDRA build and never call
    incidental = (*ModelConfig.incidental, "dropout")


class WideBlock(nn.Module):
    """BN, ReLU, conv, BN, ReLU, dropout, conv, and a shortcut: x itself, or a 1x1 convolution of the activated x."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.conv1 = conv_bn(inputs, outputs, 3, stride)
        self.dropout = Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = stride == 1 and inputs == outputs
        self.stride = stride
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn(x))
        change = self.conv2(self.dropout(F.relu(self.conv1(activated))))
        return change + (x if self.shortcut is None else self.shortcut(every(activated, self.stride)))


class WideResNet(nn.Module):
    """logits [N, classes] of images [N, C, H, W] in [0, 1]; 16-8 with 10 classes: 10,954,160 conv and linear weights.

    Convolutions start normal with variance 2 / (outputs * kernel area), as in the authors' code.
    """

    def __init__(self, channels: int, classes: int, cfg: WideResNetConfig) -> None:
        super().__init__()
        self.normalise = cfg.normalisation()
        inputs = cfg.scaled(16)
        self.stem = nn.Conv2d(channels, inputs, 3, padding=1, bias=False)
        stages = []
        for stage, outputs in enumerate(cfg.scaled(c * cfg.widen) for c in (16, 32, 64)):
            for block in range(cfg.blocks):
                stages.append(WideBlock(inputs, outputs, 2 if stage > 0 and block == 0 else 1, cfg.dropout))
                inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.blocks(self.stem(self.normalise(x)))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
