"""The folded copy that inner attacks run on computes what the network computes."""

import pytest
import torch
from tiny import randomise_batch_norm
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robcomp.models.lenet import LeNetConfig
from robcomp.models.mobilenetv2 import MobileNetV2Config
from robcomp.models.parameterisation import Dense, FactoredForm, Parameterisation, form_of, parameterise, weights
from robcomp.models.resnet import ResNetConfig
from robcomp.models.snapshot import Snapshot
from robcomp.models.vgg import VGGConfig
from robcomp.models.wideresnet import WideResNetConfig
from robcomp.trainers.compressors.low_rank import RankBudget

MODELS = {
    "lenet": (LeNetConfig(width=0.2), 1),
    "lenet_relu": (LeNetConfig(width=0.2, conv_relu=True), 1),
    "resnet18": (ResNetConfig(width=0.1), 3),
    "resnet50": (ResNetConfig(width=0.1, depth=50), 3),
    "imagenet": (ResNetConfig(width=0.1, stem="imagenet"), 3),
    "wideresnet": (WideResNetConfig(width=0.25, widen=2, dropout=0.3), 3),
    "mobilenetv2": (MobileNetV2Config(width=0.2), 3),
    "mobilenetv2_projection": (MobileNetV2Config(width=0.2, projection=True, relu6=False), 3),
    "vgg16": (VGGConfig(width=0.1), 3),
    "normalised": (ResNetConfig(width=0.1, mean=[0.49, 0.48, 0.45], std=[0.25, 0.24, 0.26]), 3),
}
FORMS = {"dense": Dense(), "factored": FactoredForm(), "low_rank": RankBudget(0.7, "greedy")}
FORMATS = [torch.contiguous_format, torch.channels_last]


def network(name: str, form: Parameterisation) -> tuple[nn.Module, torch.Tensor]:
    """A network far from its initialisation, in train mode, and images for it."""
    torch.manual_seed(0)
    config, channels = MODELS[name]
    model = config.build((channels, 16, 16), 10)
    if form != Dense():
        parameterise(model, form)
        disturb(model)
    randomise_batch_norm(model)
    return model.train(), torch.rand(8, channels, 16, 16)


def disturb(model: nn.Module) -> None:
    with torch.no_grad():
        for tensor in weights(model).values():
            tensor += 0.3 * tensor.std() * torch.randn(tensor.shape)


def expected(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits = model.eval()(x)
    model.train()
    return logits


@pytest.mark.parametrize("memory_format", FORMATS, ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_eval_mode(name: str, form: Parameterisation, memory_format: torch.memory_format) -> None:
    model, x = network(name, form)
    snapshot = Snapshot(model, torch.float32, memory_format)
    wanted = expected(model, x)
    assert (snapshot(x) - wanted).abs().max() < 2e-6 * wanted.abs().max()  # measured: 5e-7 at most
    assert snapshot(x).dtype == torch.float32


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_refresh_follows_weights_and_statistics(name: str, form: Parameterisation) -> None:
    model, x = network(name, form)
    snapshot = Snapshot(model, torch.float32, torch.contiguous_format)
    old = snapshot(x)
    disturb(model)
    randomise_batch_norm(model, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01  # biases too
    assert torch.equal(snapshot(x), old)
    snapshot.refresh()
    assert torch.allclose(snapshot(x), expected(model, x), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(snapshot(x), old, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_bf16_is_off_by_its_rounding_only(name: str, form: Parameterisation) -> None:
    """Measured: 0.2 to 1 % of the largest logit, by network; bf16 rounds by up to 0.4 % a number."""
    model, x = network(name, form)
    snapshot = Snapshot(model, torch.bfloat16, torch.channels_last)
    wanted = expected(model, x)
    assert (snapshot(x) - wanted).abs().max() < 0.02 * wanted.abs().max()


@pytest.mark.parametrize("name", MODELS)
def test_layers_of_low_rank_stay_two_products(name: str) -> None:
    """As many operations as the network itself, less than the dense one's."""
    operations = {}
    for form in ("dense", "low_rank"):
        model, x = network(name, FORMS[form])
        for module in (model.eval(), Snapshot(model, torch.float32, torch.contiguous_format)):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                module(x)
            operations.setdefault(form, []).append(counter.get_total_flops())
    assert form_of(model).ranks
    assert operations["low_rank"][0] == operations["low_rank"][1] < operations["dense"][0] == operations["dense"][1]


def test_what_is_not_folded_is_copied() -> None:
    """A batch norm by itself keeps its own parameters and statistics, in eval mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(784, 3))
    randomise_batch_norm(model)
    x = torch.rand(5, 1, 16, 16)
    snapshot = Snapshot(model.train(), torch.float32, torch.contiguous_format)
    assert torch.allclose(snapshot(x), expected(model, x), atol=1e-5)
    randomise_batch_norm(model, seed=2)
    snapshot.refresh()
    assert torch.allclose(snapshot(x), expected(model, x), atol=1e-5)
    assert not {p.data_ptr() for p in snapshot.parameters()} & {p.data_ptr() for p in model.parameters()}


def test_it_takes_no_gradients_and_gives_none() -> None:
    model, x = network("resnet18", FactoredForm())
    snapshot = Snapshot(model, torch.float32, torch.contiguous_format)
    assert not any(p.requires_grad for p in snapshot.parameters())
    x.requires_grad_()
    snapshot(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is None for p in snapshot.parameters())
    assert model.training
