"""How much of each layer stays: totals against sums made here, patterns, and what is refused."""

import json
import math

import pytest
import torch
from torch import nn

from robcomp.errors import UserError
from robcomp.models import MODELS
from robcomp.models.base import conv_bn
from robcomp.models.parameterisation import weight_layers
from robcomp.storage import describe
from robcomp.trainers.compressors.layer_budgets import LayerBudgets


def network(name: str, width: float = 0.25) -> nn.Module:
    """Without weights, as methods are checked before training."""
    shape = (1, 28, 28) if name == "lenet" else (3, 32, 32)
    with torch.device("meta"):
        return MODELS[name](name=name, width=width).build(shape, 10)


def matrices(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Rows and columns of each layer's out x (in kh kw) matrix."""
    return {name: tuple(layer.weight.flatten(1).shape) for name, layer in weight_layers(model).items()}


def unit_size(scheme: str, shape: tuple[int, int]) -> int:
    return {"irregular": 1, "filter": shape[1], "bn_filter": shape[1], "column": shape[0]}[scheme]


def kept_weights(model: nn.Module, scheme: str, counts: dict[str, int]) -> int:
    """The weights of the layers that are not in `counts`, and the kept units of those that are."""
    return sum(
        counts[name] * unit_size(scheme, shape) if name in counts else math.prod(shape)
        for name, shape in matrices(model).items()
    )


@pytest.mark.parametrize("ratio", [0.0021, 0.03, 0.1, 1 / 3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("name", ["lenet", "resnet", "mobilenetv2"])
def test_irregular_uses_the_budget_to_the_last_weight(name: str, ratio: float) -> None:
    model = network(name)
    counts = LayerBudgets(ratio).counts(model)
    sizes = {layer: math.prod(shape) for layer, shape in matrices(model).items()}
    total = math.floor(ratio * sum(sizes.values()) + 1e-9)
    assert kept_weights(model, "irregular", counts) == total
    first = next(iter(sizes))
    assert (first not in counts) == (2 * sizes[first] <= total)
    rest = total - (0 if first in counts else sizes[first])
    pruned = sum(sizes[layer] for layer in counts)
    lifted = sum(max(0, 1 - rest * sizes[layer] / pruned) for layer in counts)  # to one weight, at the others' cost
    for layer, count in counts.items():
        same = rest * sizes[layer] / pruned  # the same fraction of each layer
        assert count == 1 or math.floor(same) - math.ceil(lifted) <= count <= math.ceil(same)
        assert 1 <= count <= sizes[layer]
    assert [layer for layer in sizes if layer in counts] == list(counts)


@pytest.mark.parametrize("ratio", [0.3, 0.55, 0.9])
@pytest.mark.parametrize("scheme", ["filter", "column", "bn_filter"])
@pytest.mark.parametrize("name", ["lenet", "resnet", "mobilenetv2"])
def test_whole_groups_fill_the_budget(name: str, scheme: str, ratio: float) -> None:
    if (name, scheme) == ("lenet", "bn_filter"):
        pytest.skip("no batch norm")
    model = network(name)
    counts, shapes = LayerBudgets(ratio, scheme).counts(model), matrices(model)
    total = math.floor(ratio * sum(map(math.prod, shapes.values())) + 1e-9)
    kept = kept_weights(model, scheme, counts)
    assert kept <= total
    for layer, count in counts.items():
        size = unit_size(scheme, shapes[layer])
        full = math.prod(shapes[layer]) // size
        assert 1 <= count <= full
        assert count == full or kept + size > total, f"one more unit of {layer} would fit"
    last = list(shapes)[-1]
    assert (last in counts) == (scheme == "column")


def test_the_first_layer_gives_way_where_the_others_would_have_nothing() -> None:
    """The first layer has 10 weights and one column of each of the others 6 and 5: together 21."""
    model = nn.Sequential(nn.Linear(5, 2, bias=False), nn.Linear(2, 6, bias=False), nn.Linear(6, 5, bias=False))
    assert [math.prod(shape) for shape in matrices(model).values()] == [10, 12, 30]
    assert list(LayerBudgets(21 / 52, "column").counts(model)) == ["1", "2"]  # 10 + 6 + 5
    assert list(LayerBudgets(20 / 52, "column").counts(model)) == ["0", "1", "2"]  # 10 + 6 + 5 are 21
    assert list(LayerBudgets(19 / 52, "column").counts(model)) == ["0", "1", "2"]  # 10 is more than half


@pytest.mark.parametrize("ratio", [0.29, 0.1, 0.07])
@pytest.mark.parametrize("scheme", ["irregular", "filter", "column"])
def test_ratios_by_name(scheme: str, ratio: float) -> None:
    model = network("lenet", 1.0)
    counts = LayerBudgets(0.5, scheme, {"conv*": ratio, "conv2": 1e-9, "fc1": 1.0}).counts(model)
    units = {
        "irregular": {"conv1": 500, "fc1": 400_000},
        "filter": {"conv1": 20, "fc1": 500},
        "column": {"conv1": 25, "fc1": 800},
    }[scheme]
    exact = {0.29: 29, 0.1: 10, 0.07: 7}[ratio] * units["conv1"] // 100
    assert counts == {"conv1": exact, "conv2": 1, "fc1": units["fc1"]}


def test_the_order_of_patterns_does_not_matter() -> None:
    model = network("lenet")
    a, b = ({"*": 0.5, "fc*": 0.25, "fc1": 0.1}, {"fc1": 0.1, "fc*": 0.25, "*": 0.5})
    counts = LayerBudgets(0.5, ratios=a).counts(model)
    assert counts == LayerBudgets(0.5, ratios=b).counts(model)
    sizes = {layer: math.prod(shape) for layer, shape in matrices(model).items()}
    ratios = {"conv1": 0.5, "conv2": 0.5, "fc1": 0.1, "fc2": 0.25}
    assert counts == {layer: math.floor(ratios[layer] * sizes[layer] + 1e-9) for layer in sizes}


@pytest.mark.parametrize("scheme", ["irregular", "filter", "column", "bn_filter"])
@pytest.mark.parametrize("name", ["lenet", "resnet"])
def test_a_ratio_that_is_too_small_is_refused_with_the_least_that_is_not(name: str, scheme: str) -> None:
    if (name, scheme) == ("lenet", "bn_filter"):
        pytest.skip("no batch norm")
    model, shapes = network(name), matrices(network(name))
    prunable = list(shapes)[: None if scheme in ("irregular", "column") else -1]
    if scheme == "bn_filter":
        prunable = [layer for layer in prunable if layer.endswith("conv")]
    least = kept_weights(model, scheme, dict.fromkeys(prunable, 1))
    count = sum(map(math.prod, shapes.values()))
    assert len(LayerBudgets((least + 0.5) / count, scheme).counts(model)) == len(prunable)
    LayerBudgets((least + 0.5) / count, scheme).check(model)
    with pytest.raises(UserError, match=f"allows {least - 1:,} of {count:,} weights") as refused:
        LayerBudgets((least - 0.5) / count, scheme).check(model)
    assert f"take {least:,}; give method.ratio={least / count + 5e-5:.4f} or more" in str(refused.value)
    LayerBudgets(round(least / count + 5e-5, 4), scheme).check(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "rows"}, "unknown method.scheme 'rows'; choose from bn_filter, column, filter, irregular"),
        ({"ratios": {"conv1": 1.2}}, r"conv1=1.2 is out of range; .* lies in \(0, 1\]"),
        ({"ratios": {"conv1": 0.0}}, "conv1=0 is out of range"),
        ({"ratios": {"conv1": 0.5, "conv9": 0.5}}, "'conv9' matches no layer .* they are conv1, conv2, fc1, fc2"),
        ({"scheme": "filter", "ratios": {"fc2": 0.5}}, "'fc2' matches no layer .*=filter.* are conv1, conv2, fc1"),
        ({"scheme": "bn_filter"}, "needs a convolution followed by a batch norm, and this network has none"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LayerBudgets(0.5, **settings).check(network("lenet"))


def test_filters_of_a_single_layer_are_refused() -> None:
    with pytest.raises(UserError, match="needs a layer before the last"):
        LayerBudgets(0.5, "filter").check(nn.Sequential(nn.Linear(3, 2)))


def test_only_convolutions_with_a_batch_norm_are_pruned_by_its_scale() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), conv_bn(4, 8, 3), nn.Flatten(), nn.Linear(8, 3))
    budgets = LayerBudgets(0.5, "bn_filter")
    budgets.check(model)
    assert budgets.counts(model) == {"1.conv": (174 - 36 - 24) // 36}  # 36 + 288 + 24 = 348 weights, half is 174


def test_a_description_is_json_that_tells_budgets_apart() -> None:
    kinds = [LayerBudgets(0.1), LayerBudgets(0.1, "filter"), LayerBudgets(0.1, ratios={"conv*": 0.1})]
    assert len({json.dumps(describe(kind)) for kind in kinds}) == 3
