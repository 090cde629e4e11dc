"""Weights from elsewhere: the logits of the network they come from, or one sentence on what does not fit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from elsewhere import (
    CifarMobileNetV2,
    CifarResNet,
    CifarVGG,
    WideNet,
    torchvision_mobilenet,
    torchvision_resnet,
)
from importing_helpers import CONFIGS, fresh, pixels, refused, saved, trained
from safetensors.torch import save_file
from tiny import randomise_batch_norm
from torch import nn
from torch.nn import functional as F

from robcomp.errors import UserError
from robcomp.models.base import ModelConfig
from robcomp.models.importing import load_weights
from robcomp.models.mobilenetv2 import MobileNetV2Config
from robcomp.models.resnet import ResNetConfig

# The network elsewhere, ours, and the style that must be found.
FOREIGN = {
    "torchvision_resnet18": (
        lambda: torchvision_resnet(torchvision.models.resnet18),
        ResNetConfig(),
        "torchvision",
    ),
    "torchvision_resnet50": (
        lambda: torchvision_resnet(torchvision.models.resnet50),
        ResNetConfig(depth=50),
        "torchvision",
    ),
    "cifar_resnet18": (lambda: CifarResNet([2, 2, 2, 2], False), CONFIGS["resnet18"], "pytorch-cifar"),
    "cifar_resnet34": (
        lambda: CifarResNet([3, 4, 6, 3], False),
        ResNetConfig(width=1 / 16, depth=34),
        "pytorch-cifar",
    ),
    "cifar_resnet50": (lambda: CifarResNet([3, 4, 6, 3], True), CONFIGS["resnet50"], "pytorch-cifar"),
    "wideresnet": (WideNet, CONFIGS["wideresnet"], "WideResNet-pytorch"),
    "torchvision_mobilenetv2": (torchvision_mobilenet, MobileNetV2Config(), "torchvision"),
    "cifar_mobilenetv2": (CifarMobileNetV2, CONFIGS["projection"], "pytorch-cifar"),
    "cifar_vgg16": (CifarVGG, CONFIGS["vgg16"], "pytorch-cifar, 13 convolution biases moved into batch norms"),
    "vgg16_first": (
        lambda: CifarVGG(nn.Identity()),
        CONFIGS["vgg16"],
        "torchvision (classifier.1), 13 convolution biases moved into batch norms",
    ),
    "vgg16_last": (
        lambda: CifarVGG(*[nn.Identity()] * 6),
        CONFIGS["vgg16"],
        "torchvision (classifier.6), 13 convolution biases moved into batch norms",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
@torch.no_grad()
def test_logits_are_those_of_the_network_elsewhere(name: str, tmp_path: Path) -> None:
    make, config, style = FOREIGN[name]
    torch.manual_seed(0)
    foreign = make().eval()
    randomise_batch_norm(foreign)
    model, x = fresh(config), pixels()
    story = load_weights(model, config, saved(tmp_path, foreign.state_dict()))
    assert story == f"trained.pt: {len(foreign.state_dict())} tensors, matched by the names of {style}"
    wanted = foreign(x)
    assert (model(x) - wanted).abs().max() < 1e-5 * wanted.abs().max().clamp(min=1)
    assert wanted.std() > 1e-3


IMAGENET = {18: torchvision.models.resnet18, 34: torchvision.models.resnet34, 50: torchvision.models.resnet50}


@pytest.mark.slow
@pytest.mark.parametrize("depth", IMAGENET)
@torch.no_grad()
def test_residual_networks_of_imagenet_are_torchvisions(depth: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    foreign = IMAGENET[depth]().eval()
    randomise_batch_norm(foreign)
    normalised = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    config = ResNetConfig(depth=depth, stem="imagenet", **normalised)
    model = config.build((3, 224, 224), 1000).eval()
    story = load_weights(model, config, saved(tmp_path, foreign.state_dict()))
    assert story == f"trained.pt: {len(foreign.state_dict())} tensors, matched by the names of torchvision"
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in normalised.values())
    for size in (224, 64):
        x = torch.rand(2, 3, size, size)
        wanted = foreign((x - mean) / std)
        assert (model(x) - wanted).abs().max() < 1e-5 * wanted.abs().max()
        assert wanted.std() > 1e-3


@torch.no_grad()
def test_the_stem_of_imagenet_is_torchvisions(tmp_path: Path) -> None:
    """A stem alone, as the whole networks take seconds: convolution, batch norm, ReLU and pool, on odd sizes too."""
    foreign, config = torchvision.models.resnet18().eval(), ResNetConfig(stem="imagenet")
    randomise_batch_norm(foreign)
    model = config.build((3, 33, 46), 1000).eval()
    load_weights(model, config, saved(tmp_path, foreign.state_dict()))
    x, seen = torch.rand(2, 3, 33, 46), []
    model.blocks.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(x)
    assert torch.allclose(seen[0], foreign.maxpool(foreign.bn1(foreign.conv1(x)).relu()), atol=1e-6)


def test_a_network_of_imagenet_is_said_to_expect_normalised_images(tmp_path: Path) -> None:
    path = saved(tmp_path, torchvision.models.resnet18().state_dict())
    config = ResNetConfig(stem="imagenet")
    story = load_weights(config.build((3, 64, 64), 1000), config, path)
    assert story.endswith("normalised by model.mean=[0.485,0.456,0.406] model.std=[0.229,0.224,0.225]")


@pytest.mark.parametrize(
    ("source", "config", "advice"),
    [
        ("imagenet", "resnet18", "its 7x7 stem is that of model.stem=imagenet; choose the model"),
        ("resnet18", "imagenet", "its 3x3 stem is that of model.stem=cifar; choose the model"),
    ],
)
def test_a_file_of_the_other_stem_is_told(source: str, config: str, advice: str, tmp_path: Path) -> None:
    message = refused(CONFIGS[config], saved(tmp_path, trained(CONFIGS[source]).state_dict()))
    assert "stem.conv.weight: file [4, 3, " in message
    assert advice in message


def test_another_number_of_classes_leads_to_a_new_head(tmp_path: Path) -> None:
    path = saved(tmp_path, torchvision_resnet(torchvision.models.resnet18).state_dict())
    config = ResNetConfig(weights=str(path))
    model = config.build((3, 32, 32), 10)
    own = {name: tensor.clone() for name, tensor in model.fc.state_dict().items()}
    with pytest.raises(UserError, match=r"tells 7 classes apart and this one 10: model\.new_head=true trains on from"):
        load_weights(model, config, path)
    story = load_weights(model, replace(config, new_head=True), path)
    assert story.endswith("by the names of torchvision but its last layer (fc.bias, fc.weight), which starts anew")
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.fc.state_dict().items())
    assert torch.equal(model.blocks[7].conv2.bn.bias, torch.load(path)["layer4.1.bn2.bias"])
    assert torch.equal(model.stem.conv.weight, torch.load(path)["conv1.weight"])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_new_head_needs_no_old_one(name: str, tmp_path: Path) -> None:
    """Also where the file has none, or one of as many classes; NaN in it is no matter; all else is needed still."""
    config, source = replace(CONFIGS[name], weights="x", new_head=True), trained(CONFIGS[name]).state_dict()
    head = list(source)[-1].rpartition(".")[0]
    source[f"{head}.bias"].fill_(float("nan"))
    without = {key: tensor for key, tensor in source.items() if not key.startswith(f"{head}.")}
    models = [fresh(config), fresh(config)]
    for model, tensors in zip(models, (source, without), strict=True):
        load_weights(model, config, saved(tmp_path, tensors))
    one, two = (model.state_dict() for model in models)
    assert all(torch.equal(one[key], two[key]) and torch.equal(one[key], source[key]) for key in without)
    assert torch.equal(one[f"{head}.weight"], fresh(config).state_dict()[f"{head}.weight"])
    assert not torch.equal(one[f"{head}.weight"], source[f"{head}.weight"])
    first = next(iter(without))
    assert f"1 missing in the file ({first})" in refused(
        config, saved(tmp_path, {k: without[k] for k in [*without][1:]})
    )


def test_a_new_head_without_weights_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"model\.new_head=true leaves out the last layer of model\.weights, .* not given"
    ):
        ResNetConfig(new_head=True)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_our_own_names_come_back_as_they_were(name: str, suffix: str, tmp_path: Path) -> None:
    source, model, path = trained(CONFIGS[name]), fresh(CONFIGS[name]), tmp_path / f"own{suffix}"
    source(pixels())
    if suffix == ".pt":
        torch.save(source.state_dict(), path)
    else:
        save_file(source.state_dict(), path)
    story = load_weights(model, CONFIGS[name], path)
    assert story == f"own{suffix}: {len(source.state_dict())} tensors, matched by the names of robcomp"
    assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("shortcut", "linear", "style"),
    [("downsample", "linear", "torchvision (but linear)"), ("shortcut", "fc", "pytorch-cifar (but fc)")],
)
def test_residual_networks_of_mixed_names(shortcut: str, linear: str, style: str, tmp_path: Path) -> None:
    tensors = CifarResNet([2, 2, 2, 2], False).state_dict()
    renamed = {k.replace("shortcut", shortcut).replace("linear", linear): v for k, v in tensors.items()}
    story = load_weights(fresh(CONFIGS["resnet18"]), CONFIGS["resnet18"], saved(tmp_path, renamed))
    assert story.endswith(f"122 tensors, matched by the names of {style}")


def test_the_bias_of_a_convolution_is_taken_off_the_running_mean(tmp_path: Path) -> None:
    foreign, model = CifarVGG(), fresh(CONFIGS["vgg16"])
    randomise_batch_norm(foreign)
    load_weights(model, CONFIGS["vgg16"], saved(tmp_path, foreign.state_dict()))
    first = model.features[0]
    assert torch.equal(first.bn.running_mean, foreign.features[1].running_mean - foreign.features[0].bias)
    assert torch.equal(model.fc.bias, foreign.classifier.bias)
    assert first.conv.bias is None


def test_a_bias_with_no_batch_norm_to_move_into_is_left_over(tmp_path: Path) -> None:
    tensors = {**trained(CONFIGS["wideresnet"]).state_dict(), "blocks.0.conv2.bias": torch.ones(8)}
    message = refused(CONFIGS["wideresnet"], saved(tmp_path, tensors))
    assert "1 not used (blocks.0.conv2.bias)" in message


def test_a_block_that_is_built_and_never_called_elsewhere_is_left_out(tmp_path: Path) -> None:
    """TRADES and HYDRA: `sub_block1`, behind DataParallel."""
    torch.manual_seed(0)
    theirs = WideNet()
    tensors = theirs.state_dict()
    tensors |= {f"sub_{name}": tensor for name, tensor in tensors.items() if name.startswith("block1.")}
    path = tmp_path / "trades.pt"
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, path)
    model = CONFIGS["wideresnet"].build((3, 32, 32), theirs.fc.out_features)
    load_weights(model, CONFIGS["wideresnet"], path)
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(model.eval()(x), theirs.eval()(x), atol=1e-5)


def test_counters_of_batch_norm_may_be_absent(tmp_path: Path) -> None:
    tensors = trained(CONFIGS["resnet18"]).state_dict()
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    assert "102 tensors" in load_weights(fresh(CONFIGS["resnet18"]), CONFIGS["resnet18"], saved(tmp_path, tensors))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    source, model = trained(CONFIGS["lenet"]), fresh(CONFIGS["lenet"])
    load_weights(model, CONFIGS["lenet"], saved(tmp_path, source.to(dtype).state_dict()))
    assert torch.equal(model.fc2.weight, source.fc2.weight.float())
    assert model.fc2.weight.dtype == torch.float32


def test_biases_of_another_precision_move_too(tmp_path: Path) -> None:
    foreign, model = CifarVGG().double(), fresh(CONFIGS["vgg16"])
    load_weights(model, CONFIGS["vgg16"], saved(tmp_path, foreign.state_dict()))
    assert torch.allclose(model.features[0].bn.running_mean, -foreign.features[0].bias.float())


def test_a_normalisation_in_the_file_is_named(tmp_path: Path) -> None:
    """nn.Sequential(normalise, network): dropping the first would change what the network computes."""
    tensors = {f"1.{name}": tensor for name, tensor in trained(CONFIGS["lenet"]).state_dict().items()}
    message = refused(CONFIGS["lenet"], saved(tmp_path, {"0.mean": torch.zeros(3), "0.std": torch.ones(3), **tensors}))
    assert "under '1.'" in message
    assert "2 not used (0.mean, 0.std)" in message
    assert "give a normalisation as model.mean and model.std and take it out of the file" in message
    story = load_weights(fresh(CONFIGS["lenet"]), CONFIGS["lenet"], saved(tmp_path, tensors))
    assert story.endswith("if it normalised, set model.mean and model.std")


def test_what_does_not_fit_is_said_by_the_nearest_names(tmp_path: Path) -> None:
    tensors = {f"module.{name}": tensor for name, tensor in CifarResNet([2, 2, 2, 2], False).state_dict().items()}
    tensors["module.linear.weight"] = torch.zeros(1000, 32)
    del tensors["module.bn1.weight"], tensors["module.layer1.0.conv1.weight"]
    tensors["module.sub.weight"] = torch.zeros(3)
    message = refused(CONFIGS["resnet18"], saved(tmp_path, tensors))
    for part in (
        "does not fit model=resnet18: the best match, by the names of pytorch-cifar under 'module.', finds",
        "100 of 102 tensors;",
        "2 missing in the file (stem.bn.weight, blocks.0.conv1.conv.weight)",
        "1 not used (module.sub.weight)",
        "(module.linear.weight: file [1000, 32], model [7, 32])",
        "robcomp's names (stem.conv.weight, stem.bn.weight, stem.bn.bias, ...)",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("make", "config", "parts"),
    [
        (CifarMobileNetV2, CONFIGS["mobilenetv2"], ["of projection=true relu6=false", "layers.0.conv1.weight"]),
        (torchvision_mobilenet, MobileNetV2Config(projection=True), ["blocks.0.expand.conv", "of projection=false"]),
        (CifarVGG, CONFIGS["lenet"], ["0 of 8 tensors", "features.0.weight"]),
        (torchvision.models.resnet18, ResNetConfig(), ["conv1.weight: file [64, 3, 7, 7], model [64, 3, 3, 3]"]),
    ],
)
def test_another_network_is_refused(
    make: Callable[[], nn.Module], config: ModelConfig, parts: list[str], tmp_path: Path
) -> None:
    message = refused(config, saved(tmp_path, make().state_dict()))
    for part in parts:
        assert part in message


@pytest.mark.parametrize("relu6", [True, False])
def test_weights_cannot_tell_the_activation_so_the_sentence_does(relu6: bool, tmp_path: Path) -> None:
    config = MobileNetV2Config(width=0.125, projection=True, relu6=relu6)
    story = load_weights(fresh(config), config, saved(tmp_path, CifarMobileNetV2().state_dict()))
    assert story.endswith("pytorch-cifar (a network of projection=true relu6=false)") == relu6


def test_sparse_tensors_are_filled_in(tmp_path: Path) -> None:
    tensors = trained(CONFIGS["lenet"]).state_dict()
    dense = tensors["fc1.weight"].clone()
    tensors["fc1.weight"] = dense.to_sparse()
    model = fresh(CONFIGS["lenet"])
    load_weights(model, CONFIGS["lenet"], saved(tmp_path, tensors))
    assert torch.equal(model.fc1.weight, dense)


def test_gradients_and_modes_are_left_alone(tmp_path: Path) -> None:
    model = fresh(CONFIGS["resnet18"]).train()
    load_weights(model, CONFIGS["resnet18"], saved(tmp_path, trained(CONFIGS["resnet18"]).state_dict()))
    assert model.training
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    F.cross_entropy(model(pixels()), torch.tensor([0, 1])).backward()
