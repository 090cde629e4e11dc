"""The three sizes and the densities, against counts made by hand."""

import json
import math

import pytest
import torch
from torch import Tensor

from robcomp.evaluation.size import coded_bits, layer_size, layer_sizes, sizes, tensor_size
from robcomp.models.lenet import LeNetConfig
from robcomp.models.parameterisation import LowRankForm, parameterise
from robcomp.report.records import to_json
from robcomp.report.size import LayerSize, TensorSize


def holding(shape: tuple[int, ...], nonzero: int, distinct: int) -> Tensor:
    """A tensor with exactly `nonzero` non-zeros of exactly `distinct` values (positive and negative)."""
    values = torch.arange(nonzero) % distinct + 1.0
    flat = torch.zeros(math.prod(shape))
    flat[:nonzero] = torch.where(values % 2 == 0, values, -values)
    return flat.reshape(shape)


def test_counts_of_one_tensor() -> None:
    counted = tensor_size("weight", torch.tensor([[0.0, -0.0, 2.0], [2.0, -2.0, 0.5]]))
    assert counted == TensorSize(name="weight", shape=[2, 3], weights=6, nonzero=4, distinct=3)
    nothing = TensorSize(name="empty", shape=[0, 3], weights=0, nonzero=0, distinct=0, bytes=7)
    assert tensor_size("empty", torch.zeros(0, 3), 7) == nothing


@pytest.mark.parametrize(
    ("nonzero", "distinct", "bits"),
    [
        (0, 0, 0),  # nothing kept
        (1, 1, 32),  # 2^0 = 1 is not below 1: no codebook
        (100, 1, 0 * 100 + 32),  # one value: indices of no bits
        (100, 2, 1 * 100 + 2 * 32),
        (100, 5, 3 * 100 + 5 * 32),
        (1000, 256, 8 * 1000 + 256 * 32),
        (256, 256, 256 * 32),  # 2^8 = 256 is not below 256: no codebook
        (257, 256, 8 * 257 + 256 * 32),  # just above it: published so, although 257 * 32 is less
        (1000, 257, 9 * 1000 + 257 * 32),
        (500, 257, 500 * 32),  # 2^9 = 512 is not below 500
    ],
)
def test_published_formula_by_hand(nonzero: int, distinct: int, bits: int) -> None:
    counted = TensorSize(name="w", shape=[2000], weights=2000, nonzero=nonzero, distinct=distinct)
    assert coded_bits(counted) == bits
    if nonzero:
        assert tensor_size("w", holding((2000,), nonzero, distinct)) == counted


@pytest.fixture
def network() -> list[LayerSize]:
    """A dense layer of 1,000 weights, 300 kept of 4 values, and a factored one for 600 with 10, 20 and 0 kept."""
    factors = {"U": holding((20, 20), 10, 10), "V": holding((20, 30), 20, 3), "C": holding((20, 30), 0, 1)}
    return [layer_size("conv", {"weight": holding((10, 4, 5, 5), 300, 4)}, 1000), layer_size("fc", factors, 600)]


def test_quantised_network(network: list[LayerSize]) -> None:
    size, _ = sizes(network, bits=8, file_bytes=500, dense_file_bytes=8000)
    assert (size.dense_weights, size.nonzero, size.bits) == (1600, 330, 8)
    assert size.nominal.bits == 330 * 8
    assert size.nominal.bytes == 330
    assert size.nominal.fraction == pytest.approx(330 * 8 / (32 * 1600))
    coded = (300 * 2 + 4 * 32) + 10 * 32 + (20 * 2 + 3 * 32) + 0
    assert size.coded.bits == coded
    assert size.coded.fraction == pytest.approx(coded / (32 * 1600))
    assert (size.file.bytes, size.file.dense_bytes, size.file.fraction) == (500, 8000, 0.0625)
    assert list(size.named().items()) == [("file", size.file), ("coded", size.coded), ("nominal", size.nominal)]


def test_densities_are_over_dense_weights(network: list[LayerSize]) -> None:
    _, density = sizes(network, bits=32, file_bytes=1, dense_file_bytes=1)
    assert density.total == 330 / 1600
    conv, fc = density.layers
    assert conv == LayerSize(
        name="conv",
        weights=1000,
        nonzero=300,
        density=0.3,
        rank=None,
        channels=[4, 4],
        filters=[3, 10],
        tensors=[TensorSize(name="weight", shape=[10, 4, 5, 5], weights=1000, nonzero=300, distinct=4)],
    )
    assert (fc.weights, fc.nonzero, fc.density) == (600, 30, 0.05)
    assert [(t.name, t.weights, t.nonzero, t.distinct) for t in fc.tensors] == [
        ("U", 400, 10, 10),
        ("V", 600, 20, 3),
        ("C", 600, 0, 0),
    ]


def test_a_layer_of_low_rank_says_so() -> None:
    model = LeNetConfig(width=0.2).build((1, 16, 16), 3)
    assert [layer.rank for layer in layer_sizes(model)] == [None] * 4
    parameterise(model, LowRankForm({"conv2": 2, "fc1": 3}))
    assert {layer.name: layer.rank for layer in layer_sizes(model)} == {
        "conv1": None,
        "conv2": 2,
        "fc1": 3,
        "fc2": None,
    }


def test_channels_and_filters_that_are_gone() -> None:
    conv, linear = torch.ones(4, 3, 2, 2), torch.ones(5, 7)
    conv[1] = 0  # a filter
    conv[:, 2] = 0  # an input channel
    conv[0, 0, 1] = 0  # neither
    linear[:, :3] = 0
    rest = [layer_size("fc", {"weight": linear}, 35), layer_size("low", {"U": linear, "V": linear}, 35)]
    _, density = sizes([layer_size("conv", {"weight": conv}, 48), *rest], bits=32, file_bytes=1, dense_file_bytes=1)
    assert [layer.channels for layer in density.layers] == [[2, 3], [4, 7], None]
    assert [layer.filters for layer in density.layers] == [[3, 4], [5, 5], None]
    assert density.channels == [2, 3]  # of convolutions alone
    grouped = layer_size("conv", {"weight": conv}, 48, grouped=True)
    _, density = sizes([grouped, *rest], bits=32, file_bytes=1, dense_file_bytes=1)
    assert (density.layers[0].channels, density.layers[0].filters) == (None, [3, 4])
    assert density.channels is None


def test_without_quantisation_no_codebook_is_counted(network: list[LayerSize]) -> None:
    size, _ = sizes(network, bits=32, file_bytes=1, dense_file_bytes=1)
    assert size.nominal.bits == size.coded.bits == 330 * 32


def test_the_block_is_json_and_says_what_it_counts(network: list[LayerSize]) -> None:
    block = sizes(network, bits=8, file_bytes=1, dense_file_bytes=1)
    written = to_json(block)
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    size, _ = block
    for definition in (size.nominal.definition, size.coded.definition):
        excluded = definition.split("Not counted:")[1]
        for word in ("where the non-zeros are", "biases", "batch normalisation", "identities", "header"):
            assert word in excluded
    assert "float32 safetensors" in size.file.definition


def test_wrong_arguments_are_named(network: list[LayerSize]) -> None:
    with pytest.raises(ValueError, match="no layers: give every convolution and linear layer"):
        sizes([], 8, 1, 1)
    for bits in (0, 33):
        with pytest.raises(ValueError, match=f"bits {bits}: give 1 to 32"):
            sizes(network, bits, 1, 1)


def test_the_bytes_of_each_tensor_are_those_under_its_name_in_the_file() -> None:
    model = LeNetConfig(width=0.2).build((1, 16, 16), 3)
    parameterise(model, LowRankForm({"fc1": 3}))
    stored = {"conv1.weight": 11, "conv1.bias": 1, "fc1.U": 12, "fc1.V": 13, "weight": 99}
    found = {layer.name: {t.name: t.bytes for t in layer.tensors} for layer in layer_sizes(model, stored)}
    assert found["conv1"] == {"weight": 11}
    assert found["fc1"] == {"U": 12, "V": 13}
    assert found["conv2"] == {"weight": None}
    assert {t.bytes for layer in layer_sizes(model) for t in layer.tensors} == {None}
