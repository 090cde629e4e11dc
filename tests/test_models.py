"""Networks: pinned sizes, shapes, and what distinguishes them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robcomp.errors import UserError
from robcomp.models import MODELS, LeNetConfig, ModelConfig, ResNetConfig, dense_weight_count, weights

GREY, COLOUR = (1, 28, 28), (3, 32, 32)
NARROW = [LeNetConfig(width=0.1), ResNetConfig(width=0.05), ResNetConfig(width=0.05, depth=34)]


@pytest.mark.parametrize(
    ("config", "shape", "classes", "count"),
    [
        (LeNetConfig(), GREY, 10, 430_500),
        (ResNetConfig(depth=18), COLOUR, 10, 11_164_352),
        (ResNetConfig(depth=34), COLOUR, 10, 21_265_088),
        (ResNetConfig(depth=34), COLOUR, 100, 21_311_168),
    ],
)
def test_conv_and_linear_weights_are_as_many_as_published(
    config: ModelConfig, shape: tuple[int, int, int], classes: int, count: int
) -> None:
    with torch.device("meta"):
        model = config.build(shape, classes)
    assert dense_weight_count(model) == count
    assert all(weight.dim() > 1 for weight in weights(model).values())


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 64), (1, 16)])
@pytest.mark.parametrize("config", NARROW)
def test_logits_for_every_size_of_image(config: ModelConfig, channels: int, size: int, classes: int) -> None:
    model = config.build((channels, size, size), classes).eval()
    assert model(torch.rand(2, channels, size, size)).shape == (2, classes)


def test_images_need_not_be_square() -> None:
    assert LeNetConfig(width=0.1).build((1, 20, 36), 4)(torch.rand(1, 1, 20, 36)).shape == (1, 4)


def test_width_multiplies_every_hidden_layer_and_neither_end() -> None:
    lenet = LeNetConfig(width=0.5).build(GREY, 10)
    assert [tuple(w.shape[:2]) for w in weights(lenet).values()] == [(10, 1), (25, 10), (250, 25 * 16), (10, 250)]
    resnet = ResNetConfig(width=0.25).build(COLOUR, 10)
    assert resnet.stem.conv.weight.shape[:2] == (16, 3)
    assert resnet.fc.weight.shape == (10, 128)
    assert ResNetConfig(width=0.001).scaled(64) == 1


def test_lenet_has_no_relu_after_its_convolutions_unless_asked() -> None:
    """conv, max-pool, conv, max-pool is homogeneous and keeps negative values; ReLU makes it drop them."""
    torch.manual_seed(0)
    plain = LeNetConfig(width=0.3).build(GREY, 10)
    relu = LeNetConfig(width=0.3, conv_relu=True).build(GREY, 10)
    relu.load_state_dict(plain.state_dict())
    x, seen = torch.rand(4, *GREY), {}
    for name, model in (("plain", plain), ("relu", relu)):
        model.fc1.register_forward_pre_hook(lambda _, inputs, name=name: seen.__setitem__(name, inputs[0]))
        model(x)
    expected = x
    for conv in (plain.conv1, plain.conv2):
        expected = F.max_pool2d(conv(expected), 2)
    assert torch.allclose(seen["plain"], expected.flatten(1))
    assert seen["plain"].min() < 0
    expected = x
    for conv in (plain.conv1, plain.conv2):
        expected = F.max_pool2d(F.relu(conv(expected)), 2)
    assert torch.allclose(seen["relu"], expected.flatten(1))
    assert seen["relu"].min() == 0


@pytest.mark.parametrize("conv_relu", [False, True])
def test_lenet_has_a_relu_between_its_linear_layers(conv_relu: bool) -> None:
    model, seen = LeNetConfig(width=0.3, conv_relu=conv_relu).build(GREY, 10), []
    model.fc2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.rand(4, *GREY))
    assert seen[0].min() == 0


def test_resnet_halves_the_image_three_times_and_has_a_shortcut_at_each() -> None:
    model = ResNetConfig(width=0.05).build(COLOUR, 10).eval()
    sizes = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: sizes.append(output.shape[-1]))
    model(torch.rand(1, *COLOUR))
    assert sizes == [32, 32, 16, 16, 8, 8, 4, 4]
    projections = [i for i, block in enumerate(model.blocks) if not isinstance(block.shortcut, nn.Identity)]
    assert projections == [2, 4, 6]


def test_the_seed_of_the_global_generator_decides_the_weights() -> None:
    def build(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return LeNetConfig(width=0.1).build(GREY, 10).fc1.weight

    assert torch.equal(build(0), build(0))
    assert not torch.equal(build(0), build(1))


@pytest.mark.parametrize("config", [LeNetConfig(channels=3), ResNetConfig(channels=3)])
def test_channels_that_are_not_the_images_are_refused(config: ModelConfig) -> None:
    with pytest.raises(UserError, match=r"model.channels=3 does not fit images of 1 channels; set model.channels=1"):
        config.check(GREY)
    config.check(COLOUR)


def test_lenet_refuses_images_that_its_pools_would_swallow() -> None:
    with pytest.raises(UserError, match="16x16 pixels or more, not 15x40"):
        LeNetConfig().check((1, 15, 40))
    LeNetConfig().check((1, 16, 16))


@pytest.mark.parametrize("width", [0, -1, 65, float("nan")])
def test_width_has_a_range(width: float) -> None:
    with pytest.raises(UserError, match=r"model\.width"):
        LeNetConfig(width=width)


def test_depth_is_one_of_those_there_are() -> None:
    with pytest.raises(UserError, match=r"unknown model\.depth '50'; choose from 18, 34"):
        ResNetConfig(depth=50)


def test_the_registry() -> None:
    assert set(MODELS) == {"lenet", "resnet"}
