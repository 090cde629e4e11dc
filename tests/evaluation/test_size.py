"""The three sizes and the densities, against counts made by hand."""

import json
import math

import pytest
import torch
from torch import Tensor

from robcomp.evaluation.size import TensorSize, sizes


def holding(shape: tuple[int, ...], nonzero: int, distinct: int) -> Tensor:
    """A tensor with exactly `nonzero` non-zeros of exactly `distinct` values (positive and negative)."""
    values = torch.arange(nonzero) % distinct + 1.0
    flat = torch.zeros(math.prod(shape))
    flat[:nonzero] = torch.where(values % 2 == 0, values, -values)
    return flat.reshape(shape)


def test_counts_of_one_tensor() -> None:
    counted = TensorSize.of("weight", torch.tensor([[0.0, -0.0, 2.0], [2.0, -2.0, 0.5]]))
    assert counted == TensorSize("weight", [2, 3], weights=6, nonzero=4, distinct=3)
    assert TensorSize.of("empty", torch.zeros(0, 3)) == TensorSize("empty", [0, 3], 0, 0, 0)


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
    assert TensorSize("w", [2000], 2000, nonzero, distinct).coded_bits() == bits
    if nonzero:
        assert TensorSize.of("w", holding((2000,), nonzero, distinct)).coded_bits() == bits


@pytest.fixture
def network() -> tuple[dict[str, dict[str, Tensor]], dict[str, int]]:
    """A dense layer of 1,000 weights, 300 kept of 4 values, and a factored one for 600 with 10, 20 and 0 kept."""
    layers = {
        "conv": {"weight": holding((10, 4, 5, 5), 300, 4)},
        "fc": {"U": holding((20, 20), 10, 10), "V": holding((20, 30), 20, 3), "C": holding((20, 30), 0, 1)},
    }
    return layers, {"conv": 1000, "fc": 600}


def test_quantised_network(network: tuple[dict, dict]) -> None:
    block = sizes(*network, bits=8, file_bytes=500, dense_file_bytes=8000)
    size = block["size"]
    assert (size["dense_weights"], size["nonzero"], size["bits"]) == (1600, 330, 8)
    assert size["a"]["bits"] == 330 * 8
    assert size["a"]["fraction"] == pytest.approx(330 * 8 / (32 * 1600))
    coded = (300 * 2 + 4 * 32) + 10 * 32 + (20 * 2 + 3 * 32) + 0
    assert size["b"]["bits"] == coded
    assert size["b"]["fraction"] == pytest.approx(coded / (32 * 1600))
    assert {key: size["c"][key] for key in ("bytes", "dense_bytes", "fraction")} == {
        "bytes": 500,
        "dense_bytes": 8000,
        "fraction": 0.0625,
    }


def test_densities_are_over_dense_weights(network: tuple[dict, dict]) -> None:
    density = sizes(*network, bits=32, file_bytes=1, dense_file_bytes=1)["density"]
    assert density["total"] == 330 / 1600
    conv, fc = density["layers"]
    assert conv == {
        "name": "conv",
        "weights": 1000,
        "nonzero": 300,
        "density": 0.3,
        "rank": None,
        "channels": [4, 4],
        "filters": [3, 10],
        "tensors": [{"name": "weight", "shape": [10, 4, 5, 5], "weights": 1000, "nonzero": 300, "distinct": 4}],
    }
    assert (fc["weights"], fc["nonzero"], fc["density"]) == (600, 30, 0.05)
    assert [(t["name"], t["weights"], t["nonzero"], t["distinct"]) for t in fc["tensors"]] == [
        ("U", 400, 10, 10),
        ("V", 600, 20, 3),
        ("C", 600, 0, 0),
    ]


def test_a_layer_of_low_rank_says_so(network: tuple[dict, dict]) -> None:
    block = sizes(*network, bits=32, file_bytes=1, dense_file_bytes=1, ranks={"fc": 20})
    assert [layer["rank"] for layer in block["density"]["layers"]] == [None, 20]


def test_channels_and_filters_that_are_gone() -> None:
    conv, linear = torch.ones(4, 3, 2, 2), torch.ones(5, 7)
    conv[1] = 0  # a filter
    conv[:, 2] = 0  # an input channel
    conv[0, 0, 1] = 0  # neither
    linear[:, :3] = 0
    layers = {"conv": {"weight": conv}, "fc": {"weight": linear}, "low": {"U": linear, "V": linear}}
    dense = {"conv": 48, "fc": 35, "low": 35}
    density = sizes(layers, dense, bits=32, file_bytes=1, dense_file_bytes=1)["density"]
    assert [layer["channels"] for layer in density["layers"]] == [[2, 3], [4, 7], None]
    assert [layer["filters"] for layer in density["layers"]] == [[3, 4], [5, 5], None]
    assert density["channels"] == [2, 3]  # of convolutions alone
    grouped = sizes(layers, dense, bits=32, file_bytes=1, dense_file_bytes=1, grouped=["conv"])["density"]
    assert (grouped["layers"][0]["channels"], grouped["layers"][0]["filters"]) == (None, [3, 4])
    assert grouped["channels"] is None


def test_without_quantisation_no_codebook_is_counted(network: tuple[dict, dict]) -> None:
    size = sizes(*network, bits=32, file_bytes=1, dense_file_bytes=1)["size"]
    assert size["a"]["bits"] == size["b"]["bits"] == 330 * 32


def test_the_block_is_json_and_says_what_it_counts(network: tuple[dict, dict]) -> None:
    block = sizes(*network, bits=8, file_bytes=1, dense_file_bytes=1)
    assert json.loads(json.dumps(block, allow_nan=False)) == block
    for definition in (block["size"][key]["definition"] for key in "ab"):
        excluded = definition.split("Not counted:")[1]
        for word in ("where the non-zeros are", "biases", "batch normalisation", "identities"):
            assert word in excluded
    assert "float32 safetensors" in block["size"]["c"]["definition"]


def test_wrong_arguments_are_named(network: tuple[dict, dict]) -> None:
    layers, weights = network
    with pytest.raises(ValueError, match=r"layers \['conv', 'fc'\], dense_weights \['conv'\]"):
        sizes(layers, {"conv": 1000}, 8, 1, 1)
    with pytest.raises(ValueError, match="same layers"):
        sizes({}, {}, 8, 1, 1)
    with pytest.raises(ValueError, match="bits 0: give 1 to 32"):
        sizes(layers, weights, 0, 1, 1)
