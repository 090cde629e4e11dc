"""VGG16 with batch norm for small images (Simonyan and Zisserman, 2015; one linear layer, as usual on CIFAR)."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.models.base import MODELS, ConvBN, ModelConfig, conv_bn, pair

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions before each of the five pools


@MODELS.register("vgg")
@dataclass
class VGGConfig(ModelConfig):
    """VGG16: 13 convolutions of 3x3 with 64 to 512 channels times `width`, five max pools, one linear layer."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        return VGG(shape[0], classes, self)

    def names_elsewhere(self) -> dict[str, dict[str, str]]:
        """`features` by position, where theirs count a batch norm as a layer; the linear layer stands alone or last."""
        names: dict[str, str] = {}
        ours, theirs = 0, 0
        for _, convolutions in STAGES:
            for _ in range(convolutions):
                names |= pair(f"features.{ours}", f"features.{theirs}", f"features.{theirs + 1}")
                ours, theirs = ours + 2, theirs + 3
            ours, theirs = ours + 1, theirs + 1
        styles = {"pytorch-cifar": {**names, "fc": "classifier"}}
        for last in range(7):  # torchvision's classifier ends at 6
            styles[f"torchvision (classifier.{last})"] = {**names, "fc": f"classifier.{last}"}
        return styles


class VGG(nn.Module):
    """logits [N, classes] of images [N, C, H, W] in [0, 1]; 14,715,584 conv and linear weights with 10 classes.

    The pools round up, so that images of 28x28 fit, and an average over what is left lets larger ones fit.
    Initialisation of DNR's published code: Xavier-normal convolutions of gain 0.5, BN scale 0.5, linear N(0, 0.01).
    """

    def __init__(self, channels: int, classes: int, cfg: VGGConfig) -> None:
        super().__init__()
        self.normalise = cfg.normalisation()
        inputs, layers = channels, []
        for outputs, convolutions in STAGES:
            for _ in range(convolutions):
                layers += [conv_bn(inputs, cfg.scaled(outputs), 3), nn.ReLU()]
                inputs = cfg.scaled(outputs)
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(inputs, classes)
        for module in self.features:
            if isinstance(module, ConvBN):
                nn.init.xavier_normal_(module.conv.weight, gain=0.5)
                nn.init.constant_(module.bn.weight, 0.5)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(self.normalise(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
