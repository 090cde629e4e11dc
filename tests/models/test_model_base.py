"""What all networks share: their settings, the normalisation of their images, dropout."""

import copy
from dataclasses import replace

import pytest
import torch

from robcomp.errors import UserError
from robcomp.models.base import Dropout, ModelConfig, Normalise
from robcomp.models.lenet import LeNetConfig
from robcomp.models.mobilenetv2 import MobileNetV2Config
from robcomp.models.parameterisation import weight_layers
from robcomp.models.resnet import ResNetConfig
from robcomp.models.vgg import VGGConfig
from robcomp.models.wideresnet import WideResNetConfig
from robcomp.settings.compose import compose_config

GREY, COLOUR = (1, 28, 28), (3, 32, 32)
NARROW = [LeNetConfig(width=0.1), *(kind(width=0.05) for kind in (ResNetConfig, MobileNetV2Config, VGGConfig))]
NARROW += [WideResNetConfig(width=0.1, widen=2)]
CIFAR100 = {"mean": [0.5071, 0.4865, 0.4409], "std": [0.2673, 0.2564, 0.2762]}


@pytest.mark.parametrize("config", NARROW)
def test_every_network_normalises_its_images_first(config: ModelConfig) -> None:
    model, x, seen = replace(config, **CIFAR100).build(COLOUR, 10).eval(), torch.rand(2, *COLOUR), []
    next(iter(weight_layers(model).values())).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(x)
    mean, std = (torch.tensor(CIFAR100[key])[:, None, None] for key in ("mean", "std"))
    assert torch.equal(seen[0], (x - mean) / std)
    assert list(model.state_dict()) == list(config.build(COLOUR, 10).state_dict())


def test_normalisation_keeps_dtype_and_layout_and_moves_with_the_network() -> None:
    layer = Normalise(**CIFAR100)
    x = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)
    exact = layer(x.bfloat16().float())
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(layer(x.bfloat16()), exact.bfloat16())  # computed in float32, rounded once
    assert not layer.state_dict()
    assert {buffer.device.type for buffer in layer.to("meta").buffers()} == {"meta"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mean": [0.5]}, r"model\.mean has 1 numbers and model\.std 0; give one of each per channel, or neither"),
        ({"std": [0.5] * 3}, r"model\.mean has 0 numbers and model\.std 3"),
        ({"mean": [0.5], "std": [0.0]}, r"model\.std=\[0\.0\] is out of range"),
        ({"mean": [0.5], "std": [float("nan")]}, r"model\.std=\[nan\] is out of range"),
        ({"mean": [125.3], "std": [63.0]}, r"model\.mean=\[125\.3\] is out of range; .* by 255"),
    ],
)
def test_normalisations_that_are_none(settings: dict[str, list[float]], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        LeNetConfig(**settings)


@pytest.mark.parametrize("config", [LeNetConfig(**CIFAR100), VGGConfig(**CIFAR100)])
def test_normalisation_is_by_channel(config: ModelConfig) -> None:
    config.check(COLOUR)
    with pytest.raises(UserError, match="have 3 numbers for images of 1 channels; give one of each per channel"):
        config.check(GREY)


def test_settings_from_the_command_line(sandbox: object) -> None:
    change = [
        "model.mean=[0.5,0.4,0]",
        "model.std=[0.25,1,0.2]",
        "model.depth=28",
        "model.widen=10",
        "model.dropout=0.3",
    ]
    model = compose_config(["dataset=cifar10", "model=wideresnet", "model.weights=a.pt", *change]).model
    wanted = WideResNetConfig("wideresnet", 1.0, None, [0.5, 0.4, 0.0], [0.25, 1.0, 0.2], "a.pt", 28, 10, 0.3)
    assert model == wanted
    with pytest.raises(UserError, match="have 1 numbers for images of 3 channels"):
        compose_config(["dataset=cifar10", "model.mean=[0.5]", "model.std=[0.5]"])


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", DEVICES)
def test_dropout_draws_from_its_own_generator(device: str, dtype: torch.dtype) -> None:
    layer, x = Dropout(0.25), torch.ones(64, 32, 8, 8, device=device, dtype=dtype)
    layer.random = torch.Generator(device)

    def drop(seed: int) -> torch.Tensor:
        layer.random.manual_seed(seed)
        torch.rand(3, device=device)  # the global generator has no say
        return layer(x)

    result = drop(0)
    assert result.dtype == dtype
    assert torch.equal(result, drop(0))
    assert not torch.equal(result, drop(1))
    assert set(result.unique().tolist()) == {0.0, torch.tensor(1 / 0.75, dtype=dtype).item()}
    assert (result == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_dropout_passes_everything_on_in_eval_mode_and_at_zero() -> None:
    x = torch.rand(2, 3)
    assert Dropout(0.9).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
    assert copy.copy(Dropout(0.9)).eval()(x) is x


def test_dropout_keeps_the_layout() -> None:
    x = torch.rand(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    assert Dropout(0.5)(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_dropout_in_a_cuda_graph_follows_the_seed() -> None:
    layer, x = Dropout(0.5), torch.ones(1000, device="cuda")
    layer.random = torch.Generator("cuda")
    layer(x)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(layer.random)
    with torch.cuda.graph(graph):
        result = layer(x)
    for seed in (0, 1):
        layer.random.manual_seed(seed)
        graph.replay()
        replayed = result.clone()
        layer.random.manual_seed(seed)
        assert torch.equal(replayed, layer(x))
