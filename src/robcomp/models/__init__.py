"""Networks, one architecture a file: logits = model(x), x in [0, 1]."""

from robcomp.models.base import MODELS, ConvBN, ModelConfig
from robcomp.models.lenet import LeNetConfig
from robcomp.models.mobilenetv2 import MobileNetV2Config
from robcomp.models.parameterisation import dense_weight_count, weight_layers, weights
from robcomp.models.resnet import ResNetConfig
from robcomp.models.vgg import VGGConfig
from robcomp.models.wideresnet import WideResNetConfig

__all__ = [
    "MODELS",
    "ConvBN",
    "LeNetConfig",
    "MobileNetV2Config",
    "ModelConfig",
    "ResNetConfig",
    "VGGConfig",
    "WideResNetConfig",
    "dense_weight_count",
    "weight_layers",
    "weights",
]
