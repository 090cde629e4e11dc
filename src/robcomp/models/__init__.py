"""Networks, one architecture a file: logits = model(x), x in [0, 1]."""

from robcomp.models.base import MODELS, ConvBN, ModelConfig
from robcomp.models.lenet import LeNetConfig
from robcomp.models.parameterisation import dense_weight_count, weight_layers, weights
from robcomp.models.resnet import ResNetConfig

__all__ = [
    "MODELS",
    "ConvBN",
    "LeNetConfig",
    "ModelConfig",
    "ResNetConfig",
    "dense_weight_count",
    "weight_layers",
    "weights",
]
