"""LeNet in its Caffe form, the network of the ATMC paper's MNIST figures."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.errors import UserError
from robcomp.models.base import MODELS, ModelConfig


@MODELS.register("lenet")
@dataclass
class LeNetConfig(ModelConfig):
    """conv 20@5x5, pool, conv 50@5x5, pool, linear 500, ReLU, linear; no ReLU after the convolutions by default."""

    conv_relu: bool = False  # ReLU after each convolution, which the published network lacks

    def check(self, shape: tuple[int, int, int]) -> None:
        super().check(shape)
        if min(shape[1:]) < 16:
            raise UserError(
                f"model=lenet needs images of 16x16 pixels or more, not {shape[1]}x{shape[2]}; choose another data set."
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return LeNet(shape, classes, self)


class LeNet(nn.Module):
    """logits [N, classes] of images [N, C, H, W] in [0, 1]; 430,500 conv and linear weights on 1x28x28 images."""

    def __init__(self, shape: tuple[int, int, int], classes: int, cfg: LeNetConfig) -> None:
        super().__init__()
        self.normalise = cfg.normalisation()
        first, second, hidden = cfg.scaled(20), cfg.scaled(50), cfg.scaled(500)
        height, width = (((size - 4) // 2 - 4) // 2 for size in shape[1:])
        self.conv1 = nn.Conv2d(shape[0], first, 5)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.fc1 = nn.Linear(second * height * width, hidden)
        self.fc2 = nn.Linear(hidden, classes)
        self.conv_relu = cfg.conv_relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalise(x)
        for conv in (self.conv1, self.conv2):
            x = F.max_pool2d(conv(x), 2)
            if self.conv_relu:
                x = F.relu(x)  # after the pool: the same values, a quarter of the work
        return self.fc2(F.relu(self.fc1(x.flatten(1))))
