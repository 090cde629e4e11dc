"""Layers of low rank: two products that compute what U V would, ranks that keep the budget, a form that survives."""

from copy import deepcopy

import pytest
import torch
from tiny import CLASSES, SHAPE
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robcomp.errors import UserError
from robcomp.evaluation.cost import macs
from robcomp.models.layers import LowRank
from robcomp.models.lenet import LeNetConfig
from robcomp.models.mobilenetv2 import MobileNetV2Config
from robcomp.models.parameterisation import (
    Dense,
    FactoredForm,
    dense_weight_count,
    effective_weight,
    form_of,
    from_spec,
    parameterise,
    restore,
    to_spec,
    weight_layers,
    weights,
)
from robcomp.models.resnet import ResNetConfig
from robcomp.models.vgg import VGGConfig
from robcomp.models.wideresnet import WideResNetConfig
from robcomp.trainers.compressors.low_rank import RankBudget
from robcomp.trainers.methods.alr import AdversarialLowRank

CONV, LINEAR = nn.Conv2d(4, 6, 3, 2, 1, dilation=1), nn.Linear(20, 8, bias=False)


def lenet() -> nn.Module:
    torch.manual_seed(0)
    return LeNetConfig(width=0.3).build(SHAPE, CLASSES)


def stored(model: nn.Module) -> int:
    return sum(tensor.numel() for tensor in weights(model).values())


@pytest.mark.parametrize("layer", [CONV, LINEAR], ids=["conv", "linear"])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_two_products_are_the_layer_with_the_truncated_weight(layer: nn.Module, rank: int) -> None:
    low = LowRank(layer, rank)
    P, S, Q = torch.linalg.svd(layer.weight.detach().flatten(1), full_matrices=False)
    truncated = (P[:, :rank] * S[:rank]) @ Q[:rank]
    assert torch.allclose(effective_weight(low).flatten(1), truncated, atol=1e-6)
    plain = deepcopy(layer)
    plain.weight.data = truncated.view(layer.weight.shape)
    x = torch.randn(2, *([20] if layer is LINEAR else [4, 9, 9]))
    assert torch.allclose(low(x), plain(x), atol=1e-5)
    assert set(low.state_dict()) == {"U", "V"} | ({"bias"} if layer is CONV else set())


def test_it_really_computes_two_smaller_products() -> None:
    """Counted by torch: an 8x8 image through 3 of 6 ranks, 64 positions each."""
    conv = nn.Conv2d(16, 32, 3, padding=1, bias=False)
    with FlopCounterMode(display=False) as counter:
        LowRank(conv, 5)(torch.rand(1, 16, 8, 8))
    assert counter.get_total_flops() == 2 * 64 * (5 * 16 * 9 + 32 * 5)


@pytest.mark.parametrize("rule", ["pooled", "greedy"])
@pytest.mark.parametrize("ratio", [0.12, 0.2, 0.5, 0.9])
def test_the_budget_is_kept_on_the_dense_count(rule: str, ratio: float) -> None:
    model = lenet()
    count = dense_weight_count(model)
    parameterise(model, RankBudget(ratio, rule))
    assert stored(model) <= ratio * count
    assert stored(model) > ratio * count - sum(max(w.flatten(1).shape) * 2 for w in weights(lenet()).values())
    assert dense_weight_count(model) == count
    chosen = {name: layer for name, layer in weight_layers(model).items() if isinstance(layer, LowRank)}
    assert chosen
    for name, layer in chosen.items():
        dense = effective_weight(weight_layers(lenet())[name])
        assert sum(t.numel() for t in layer.stored().values()) < dense.numel()
        assert torch.linalg.matrix_rank(layer.weight().detach().flatten(1)) == layer.rank
        assert form_of(model).ranks[name] == layer.rank


def test_all_of_the_budget_leaves_the_network_alone() -> None:
    model = lenet()
    parameterise(model, RankBudget(1.0))
    assert form_of(model) == Dense()


def test_a_chosen_form_stays() -> None:
    """A later stage (a codebook after training) asks for the same rule on changed weights."""
    model = lenet()
    parameterise(model, RankBudget(0.3))
    form = form_of(model)
    with torch.no_grad():
        for tensor in weights(model).values():
            tensor.mul_(torch.rand(tensor.shape))
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameterise(model, RankBudget(0.3))
    assert form_of(model) == form
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(ValueError, match="only a dense network"):
        parameterise(model, FactoredForm())


def test_a_form_survives_its_specification_and_a_state_dict() -> None:
    model = lenet()
    parameterise(model, RankBudget(0.3, "greedy"))
    assert from_spec(to_spec(form_of(model))) == form_of(model)
    again = LeNetConfig(width=0.3).build(SHAPE, CLASSES)
    restore(again, to_spec(form_of(model)), model.state_dict())
    x = torch.rand(2, *SHAPE)
    assert torch.equal(again(x), model(x))


def test_the_published_fraction_of_singular_values() -> None:
    model = lenet()
    spectra = {n: torch.linalg.svdvals(effective_weight(layer).flatten(1)) for n, layer in weight_layers(model).items()}
    threshold = torch.cat(list(spectra.values())).sort(descending=True).values
    threshold = threshold[int(0.2 * len(threshold)) - 1]
    parameterise(model, RankBudget(0.001, "pooled", 0.2))
    expected = {name: max(1, int((s >= threshold).sum())) for name, s in spectra.items()}
    assert form_of(model).ranks == {
        name: rank
        for name, rank in expected.items()
        if rank * sum(effective_weight(weight_layers(lenet())[name]).flatten(1).shape) < spectra_size(name)
    }


def spectra_size(name: str) -> int:
    return effective_weight(weight_layers(lenet())[name]).numel()


def test_grouped_convolutions_stay_dense_and_count() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 16, 5, groups=16), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(800, 10))
    parameterise(model, RankBudget(0.3))
    assert isinstance(model[0], nn.Conv2d)
    assert isinstance(model[1], LowRank)
    assert 400 < stored(model) <= 0.3 * dense_weight_count(model)


def test_a_ratio_below_rank_one_is_refused_before_training() -> None:
    """LeNet: 45 + 550 + 1300 + 510 = 2,405 numbers, as the leftmost point of the published curve."""
    with torch.device("meta"):
        model = LeNetConfig().build((1, 28, 28), 10)
    with pytest.raises(
        UserError, match=r"method.ratio=0.005 allows 2,152 of 430,500 .* takes 2,405; .*=0.0056 or more"
    ):
        AdversarialLowRank(ratio=0.005).check(model)
    AdversarialLowRank(ratio=0.0056).check(model)
    AdversarialLowRank(ratio=0.001, singular_values=0.1).check(model)


@pytest.mark.parametrize(
    "wrong", [{"rule": "best"}, {"singular_values": 1.5}, {"rule": "greedy", "singular_values": 0.5}]
)
def test_settings_that_contradict_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match=r"method\.(rule|singular_values)"):
        AdversarialLowRank(**wrong)


def macs_by_torch(model: nn.Module, shape: tuple[int, int, int]) -> int:
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("form", [Dense(), RankBudget(0.7)], ids=["dense", "low_rank"])
@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (LeNetConfig(width=0.3), (1, 28, 28)),
        (ResNetConfig(width=0.1), (3, 32, 32)),
        (WideResNetConfig(width=0.25, widen=2), (3, 32, 32)),
        (MobileNetV2Config(width=0.2), (3, 32, 32)),
        (VGGConfig(width=0.1), (3, 64, 64)),
    ],
)
def test_executed_operations_are_those_that_torch_counts(config, shape, form) -> None:
    model = config.build(shape, 10).eval()
    dense = macs_by_torch(model, shape)
    parameterise(model, form)
    block = macs(model, shape)
    assert block.dense == dense
    assert block.executed == block.nonzero == macs_by_torch(model, shape)
    assert (block.executed < dense) == (form != Dense())
    assert [layer.name for layer in block.layers] == list(weight_layers(model))
    for kind in ("dense", "executed", "nonzero"):
        assert getattr(block, kind) == sum(getattr(layer, kind) for layer in block.layers)


def test_zeros_and_factors_by_hand() -> None:
    """LeNet at full width: 24x24x500, 8x8x25,000, 400,000 and 5,000."""
    model = LeNetConfig().build((1, 28, 28), 10).eval()
    with torch.no_grad():
        model.conv2.weight[:10] = 0
    parameterise(model, FactoredForm())
    block = macs(model, (1, 28, 28))
    assert block.dense == block.executed == 288_000 + 1_600_000 + 400_000 + 5_000
    assert block.nonzero == block.dense - 64 * 5_000
