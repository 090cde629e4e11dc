"""Our networks for the tests of importing, narrow and small, and a file's refusal."""

from pathlib import Path

import pytest
import torch
from elsewhere import CLASSES, SHAPE
from tiny import randomise_batch_norm
from torch import Tensor, nn

from robcomp.errors import UserError
from robcomp.models.base import ModelConfig
from robcomp.models.importing import load_weights
from robcomp.models.lenet import LeNetConfig
from robcomp.models.mobilenetv2 import MobileNetV2Config
from robcomp.models.resnet import ResNetConfig
from robcomp.models.vgg import VGGConfig
from robcomp.models.wideresnet import WideResNetConfig

CONFIGS = {
    "lenet": LeNetConfig(width=0.1),
    "resnet18": ResNetConfig(name="resnet18", width=1 / 16),
    "resnet50": ResNetConfig(width=1 / 16, depth=50),
    "imagenet": ResNetConfig(width=1 / 16, stem="imagenet"),
    "wideresnet": WideResNetConfig(width=0.25, widen=2),
    "mobilenetv2": MobileNetV2Config(width=0.125),
    "projection": MobileNetV2Config(width=0.125, projection=True, relu6=False),
    "vgg16": VGGConfig(width=0.125),
}


def fresh(config: ModelConfig, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return config.build(SHAPE, CLASSES).eval()


def trained(config: ModelConfig) -> nn.Module:
    """Our network, its batch norms as after some training."""
    model = fresh(config, seed=2)
    randomise_batch_norm(model)
    return model


def pixels() -> Tensor:
    return torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(3))


def saved(folder: Path, content: object, name: str = "trained.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


def refused(config: ModelConfig, path: Path) -> str:
    """The sentence with which the file is refused; the network keeps its weights."""
    model = fresh(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_weights(model, config, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)
