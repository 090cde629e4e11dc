"""Networks: pinned sizes, shapes, and what distinguishes them."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from robcomp.errors import UserError
from robcomp.models import MODELS
from robcomp.models.base import Dropout, ModelConfig
from robcomp.models.lenet import LeNetConfig
from robcomp.models.mobilenetv2 import MobileNetV2Config
from robcomp.models.parameterisation import dense_weight_count, weights
from robcomp.models.resnet import ResNetConfig
from robcomp.models.vgg import VGGConfig
from robcomp.models.wideresnet import WideResNetConfig

GREY, COLOUR = (1, 28, 28), (3, 32, 32)
NARROW = [
    LeNetConfig(width=0.1),
    ResNetConfig(width=0.05),
    ResNetConfig(width=0.05, depth=34),
    ResNetConfig(width=0.05, depth=50),
    ResNetConfig(width=0.05, stem="imagenet"),
    WideResNetConfig(width=0.1, widen=2, depth=10),
    MobileNetV2Config(width=0.05),
    MobileNetV2Config(width=0.05, projection=True, relu6=False),
    VGGConfig(width=0.05),
]


@pytest.mark.parametrize(
    ("config", "shape", "classes", "count"),
    [
        (LeNetConfig(), GREY, 10, 430_500),
        (ResNetConfig(depth=18), COLOUR, 10, 11_164_352),
        (ResNetConfig(depth=34), COLOUR, 10, 21_265_088),
        (ResNetConfig(depth=34), COLOUR, 100, 21_311_168),
        (ResNetConfig(depth=50), COLOUR, 10, 23_467_712),
        (ResNetConfig(depth=18, stem="imagenet"), COLOUR, 1000, 11_678_912),
        (ResNetConfig(depth=34, stem="imagenet"), COLOUR, 1000, 21_779_648),
        (ResNetConfig(depth=50, stem="imagenet"), COLOUR, 1000, 25_502_912),
        (WideResNetConfig(), COLOUR, 10, 10_954_160),
        (WideResNetConfig(depth=28, widen=10), COLOUR, 10, 36_461_232),
        (MobileNetV2Config(), COLOUR, 10, 2_202_560),
        (MobileNetV2Config(projection=True), COLOUR, 10, 2_261_824),
        (VGGConfig(), COLOUR, 10, 14_715_584),
    ],
)
def test_conv_and_linear_weights_are_as_many_as_published(
    config: ModelConfig, shape: tuple[int, int, int], classes: int, count: int
) -> None:
    with torch.device("meta"):
        model = config.build(shape, classes)
    assert dense_weight_count(model) == count
    assert all(weight.dim() > 1 for weight in weights(model).values())


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (ResNetConfig(depth=50), 23_520_842),
        (WideResNetConfig(depth=28, widen=10), 36_479_194),
        (MobileNetV2Config(), 2_236_682),
        (MobileNetV2Config(projection=True), 2_296_922),
        (VGGConfig(), 14_728_266 - 4_224),  # published with biases of the convolutions, which batch norm makes idle
    ],
)
def test_all_parameters_are_as_many_as_in_the_usual_code(config: ModelConfig, count: int) -> None:
    with torch.device("meta"):
        model = config.build(COLOUR, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_weights_counted_by_hand() -> None:
    """VGG16: 3x3 kernels between neighbouring channel counts. WRN: 2n 3x3 convolutions a stage and three shortcuts."""
    plan = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert dense_weight_count(VGGConfig().build(COLOUR, 7)) == sum(9 * a * b for a, b in pairwise(plan)) + 512 * 7
    for n, k in ((1, 1), (2, 3), (3, 2)):
        stages = zip((16, 16 * k, 32 * k), (16 * k, 32 * k, 64 * k), strict=True)
        count = 9 * 3 * 16 + 64 * k * 7
        for a, b in stages:
            count += 9 * a * b + (2 * n - 1) * 9 * b * b + (a * b if a != b else 0)
        assert dense_weight_count(WideResNetConfig(depth=6 * n + 4, widen=k).build(COLOUR, 7)) == count


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
    assert ResNetConfig(width=0.008).scaled(64) == 1
    with pytest.raises(UserError, match=r"model.width=0.001 leaves none of a layer's 64 channels; give at least 0.008"):
        ResNetConfig(width=0.001).build(COLOUR, 10)


@pytest.mark.parametrize(
    "config",
    [
        ResNetConfig(),
        ResNetConfig(depth=50),
        ResNetConfig(stem="imagenet"),
        WideResNetConfig(),
        MobileNetV2Config(),
        MobileNetV2Config(projection=True),
        VGGConfig(),
    ],
    ids=["resnet18", "resnet50", "imagenet", "wideresnet", "mobilenetv2", "projection", "vgg16"],
)
def test_half_the_width_is_half_of_every_hidden_channel_count(config: ModelConfig) -> None:
    with torch.device("meta"):
        whole = weights(config.build(COLOUR, 10))
        half = weights(replace(config, width=0.5).build(COLOUR, 10))
    assert list(half) == list(whole)
    for position, (name, weight) in enumerate(whole.items()):
        outputs, inputs = weight.shape[:2]
        ends = name == "fc.weight", position == 0 or inputs == 1  # classes; image channels, or one channel a group
        expected = tuple(c if end else c // 2 for c, end in zip((outputs, inputs), ends, strict=True))
        assert half[name].shape[:2] == expected, name


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


def sizes_of_blocks(model: nn.Module) -> list[int]:
    sizes = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: sizes.append(output.shape[-1]))
    model.eval()(torch.rand(1, *COLOUR))
    return sizes


def test_wideresnet_halves_the_image_twice_and_has_three_shortcuts() -> None:
    model = WideResNetConfig(width=0.1).build(COLOUR, 10)
    assert sizes_of_blocks(model) == [32, 32, 16, 16, 8, 8]
    assert [i for i, block in enumerate(model.blocks) if block.shortcut is not None] == [0, 2, 4]


def test_wideresnet_drops_out_in_training_only_and_between_the_convolutions() -> None:
    torch.manual_seed(0)
    model, x = WideResNetConfig(width=0.25, dropout=0.5).build(COLOUR, 10), torch.rand(2, *COLOUR)
    dropouts = [module for module in model.modules() if isinstance(module, Dropout)]
    assert [module.p for module in dropouts] == [0.5] * 6
    seen = []
    model.blocks[0].conv2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    zeros = [(inputs == 0).float().mean().item() for inputs in seen]
    assert min(zeros[:2]) > max(zeros[2:]) + 0.1


@pytest.mark.parametrize("depth", [4, 9, 17, 20, -2])
def test_depth_of_a_wide_network_is_six_n_and_four(depth: int) -> None:
    with pytest.raises(UserError, match=rf"model\.depth={depth} is not 6n \+ 4; choose 10, 16, 22"):
        WideResNetConfig(depth=depth)


@pytest.mark.parametrize(("field", "value"), [("widen", 0), ("widen", 65), ("dropout", 1.0), ("dropout", -0.1)])
def test_ranges_of_a_wide_network(field: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"model\.{field}={value:g} is out of range"):
        WideResNetConfig(**{field: value})


@pytest.mark.parametrize("projection", [False, True])
def test_mobilenetv2_has_the_strides_of_small_images_and_the_shortcuts_of_its_variant(projection: bool) -> None:
    model = MobileNetV2Config(width=0.2, projection=projection).build(COLOUR, 10)
    assert sizes_of_blocks(model) == [32] * 3 + [16] * 3 + [8] * 7 + [4] * 4
    kinds = ["-+="[1 if isinstance(b.shortcut, nn.Identity) else 2 * (b.shortcut is not None)] for b in model.blocks]
    assert "".join(kinds) == ("==+-++-+++=++-++=" if projection else "--+-++-+++-++-++-")
    assert (model.blocks[0].expand is not None) == projection
    depthwise = model.blocks[5].depthwise.conv
    assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == 6 * 6


@pytest.mark.parametrize("relu6", [False, True])
def test_mobilenetv2_cuts_its_activations_off_at_six_unless_told_not_to(relu6: bool) -> None:
    torch.manual_seed(0)
    model, seen = MobileNetV2Config(width=0.2, relu6=relu6).build(COLOUR, 10).eval(), []
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(1e-3)
    for block in model.blocks:
        block.project.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].max().item()))
    model.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].max().item()))
    model(torch.rand(2, *COLOUR))
    assert (max(seen) <= 6) == relu6


def test_vgg_starts_as_dnr_does() -> None:
    """Xavier with gain 0.5: standard deviation 0.5 * sqrt(2 / (9 * (inputs + outputs)))."""
    torch.manual_seed(0)
    model = VGGConfig(width=0.5).build(COLOUR, 10)
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 13
    for conv in convs[1:]:
        outputs, inputs = conv.weight.shape[:2]
        assert conv.weight.std().item() == pytest.approx(0.5 * (2 / (9 * (inputs + outputs))) ** 0.5, rel=0.03)
        assert conv.bias is None
    assert all((m.weight == 0.5).all() for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not model.fc.bias.any()


@pytest.mark.parametrize(("size", "left"), [(16, 1), (28, 1), (32, 1), (33, 2), (64, 2)])
def test_vgg_pools_round_up(size: int, left: int) -> None:
    model, seen = VGGConfig(width=0.05).build((3, size, size), 10).eval(), []
    model.features.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape[2:])))
    model(torch.rand(1, 3, size, size))
    assert seen == [(left, left)]


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


@pytest.mark.parametrize(
    ("depth", "parameters", "gmacs"), [(18, 11_689_512, 1.81), (34, 21_797_672, 3.66), (50, 25_557_032, 4.09)]
)
def test_networks_of_imagenet_are_as_large_and_as_costly_as_published(
    depth: int, parameters: int, gmacs: float
) -> None:
    """torchvision's table of its networks: num_params, and GFLOPS, for which it counts a product and sum as one."""
    with torch.device("meta"):
        model = ResNetConfig(depth=depth, stem="imagenet").build((3, 224, 224), 1000).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    assert round(counter.get_total_flops() / 2e9, 2) == gmacs


def test_the_stem_of_imagenet_halves_the_image_twice() -> None:
    config = ResNetConfig(width=0.05, stem="imagenet")
    assert sizes_of_blocks(config.build(COLOUR, 10)) == [8, 8, 4, 4, 2, 2, 1, 1]
    assert list(config.build(COLOUR, 10).state_dict()) == list(ResNetConfig(width=0.05).build(COLOUR, 10).state_dict())
    config.check((3, 32, 40))
    with pytest.raises(UserError, match=r"model\.stem=imagenet divides .* 32x32 pixels or more, not 40x28; leave"):
        config.check((1, 40, 28))
    ResNetConfig().check((1, 16, 16))


def test_the_stem_is_one_of_those_there_are() -> None:
    with pytest.raises(UserError, match=r"unknown model\.stem 'imagnet'; choose from cifar, imagenet. Did you mean"):
        ResNetConfig(stem="imagnet")


def test_depth_is_one_of_those_there_are() -> None:
    with pytest.raises(UserError, match=r"unknown model\.depth '19'; choose from 18, 34, 50"):
        ResNetConfig(depth=19)


def test_names_of_the_small_residual_networks_are_those_of_files_written_earlier() -> None:
    names = list(ResNetConfig(width=0.05).build(COLOUR, 10).state_dict())
    assert names[:2] == ["stem.conv.weight", "stem.bn.weight"]
    assert {"blocks.0.conv1.conv.weight", "blocks.2.shortcut.bn.running_var", "blocks.7.conv2.bn.bias"} <= set(names)
    assert names[-2:] == ["fc.weight", "fc.bias"]
    assert len(names) == 122


def test_the_registry() -> None:
    assert set(MODELS) == {"lenet", "mobilenetv2", "resnet", "vgg", "wideresnet"}


@pytest.mark.parametrize(
    "config",
    [ResNetConfig(width=0.0625), ResNetConfig(width=0.0625, stem="imagenet"), WideResNetConfig(width=0.03125)],
)
def test_weight_gradients_are_the_same_in_either_memory_format(config: ModelConfig) -> None:
    """With a strided 1x1 convolution of 4 channels, oneDNN's channels_last gradient is wrong or a crash."""
    torch.manual_seed(0)
    model, x = config.build((3, 64, 64), 10), torch.rand(4, 3, 64, 64)
    gradients = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model.to(memory_format=memory_format).zero_grad()
        model(x.contiguous(memory_format=memory_format)).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for name, plain, last in zip(dict(model.named_parameters()), *gradients, strict=True):
        assert (plain - last).norm() < 0.1 * plain.norm(), name  # at most 0.03: rounding moves a few ReLUs
