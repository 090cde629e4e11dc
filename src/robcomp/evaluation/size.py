"""The size of a network by three definitions, each said in words beside its number, and its exact densities."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

FULL_BITS = 32

NOMINAL = (
    "The papers' size: the number of non-zero convolution and linear weights times the nominal bit width of the model "
    "(32 without quantisation). The fraction is of 32 bits for every weight of the dense network. Not counted: where "
    "the non-zeros are, codebooks, biases, batch normalisation, fixed identities of factored layers."
)
WITH_CODEBOOKS = (
    "The size as the published ATMC code counts it: in a quantised model each convolution or linear tensor with n "
    "non-zeros of d distinct values counts n * b bits, b = ceil(log2(d)) (0 for one value), and a codebook of d "
    "entries of 32 bits, where 2^b < n; otherwise, and in a model without quantisation, n * 32 bits. The fraction is "
    "of 32 bits for every weight of the dense network. Not counted: where the non-zeros are, biases, batch "
    "normalisation, fixed identities of factored layers."
)
FILE = (
    "Real bytes of the model file as written to disk, everything included that rebuilding the network needs: "
    "positions, values, codebooks, biases, batch normalisation, header. The fraction is of the real bytes of the dense "
    "network as a float32 safetensors file."
)


@dataclass(frozen=True)
class TensorSize:
    """Exact counts of one stored tensor: entries, non-zero entries, and distinct values among the latter."""

    name: str
    shape: list[int]
    weights: int
    nonzero: int
    distinct: int

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> "TensorSize":
        """Count `tensor`, of any shape; -0.0 counts as zero."""
        values = tensor.detach()[tensor.detach() != 0]
        return cls(name, list(tensor.shape), tensor.numel(), values.numel(), torch.unique(values).numel())

    def coded_bits(self) -> int:
        """Bits by the published formula for a quantised model (ATMC code, inference_model.py).

        It asks whether the codebook has room for fewer values than there are non-zeros, not whether it saves bits:
        kept as published, so for a few tensors just above that line 32 bits each would be less.
        """
        width = max(self.distinct - 1, 0).bit_length()
        if 2**width < self.nonzero:
            return self.nonzero * width + self.distinct * FULL_BITS
        return self.nonzero * FULL_BITS


@dataclass(frozen=True)
class LayerSize:
    """Exact counts of one layer: the weights of its dense form, and what is stored for it in one or more tensors.

    `rank` is that of a layer stored as U V of low rank, None for any other. `channels` and `filters` are [present, all]
    of a layer stored as one tensor: inputs that some weight reads, outputs that some weight feeds; None for factors,
    and no channels of a grouped convolution, each of whose filters reads inputs of its own.
    """

    name: str
    weights: int
    nonzero: int
    density: float
    rank: int | None
    channels: list[int] | None
    filters: list[int] | None
    tensors: list[TensorSize]

    @classmethod
    def of(cls, name: str, tensors: Mapping[str, Tensor], weights: int, rank: int | None, grouped: bool) -> "LayerSize":
        """Count the stored `tensors` of the layer `name`, which has `weights` > 0 weights when dense."""
        counted = [TensorSize.of(part, tensor) for part, tensor in tensors.items()]
        nonzero = sum(tensor.nonzero for tensor in counted)
        channels, filters = (present(tensors["weight"], axis) if "weight" in tensors else None for axis in (1, 0))
        channels = None if grouped else channels
        return cls(name, weights, nonzero, nonzero / weights, rank, channels, filters, counted)


def present(weight: Tensor, axis: int) -> list[int]:
    """[slices of `weight` along `axis` with a non-zero, all slices]: 1 for input channels, 0 for filters."""
    slices = weight.detach().movedim(axis, 0).flatten(1)
    return [int((slices != 0).any(1).sum()), len(slices)]


def sizes(
    layers: Mapping[str, Mapping[str, Tensor]],
    dense_weights: Mapping[str, int],
    bits: int,
    file_bytes: int,
    dense_file_bytes: int,
    ranks: Mapping[str, int] | None = None,
    grouped: Collection[str] = (),
) -> dict[str, Any]:
    """The blocks "size" and "density" of report.json.

    `layers`: layer -> the tensors stored for it, {"weight"} or its factors; `dense_weights`: layer -> weights of its
    dense form; `bits`: nominal width of the weights, 1 to 32, 32 without quantisation; `file_bytes`,
    `dense_file_bytes`: bytes of the model file and of the dense float32 file; `ranks`: of the layers of low rank;
    `grouped`: the grouped convolutions. Densities are non-zeros over dense weights, so a factored layer's can
    exceed 1. ValueError if the layers of the two mappings differ or bits are out of range.
    """
    if layers.keys() != dense_weights.keys() or not layers:
        raise ValueError(f"layers {list(layers)}, dense_weights {list(dense_weights)}: give both for the same layers")
    if not 1 <= bits <= FULL_BITS:
        raise ValueError(f"bits {bits}: give 1 to {FULL_BITS}")
    ranks = ranks or {}
    counted = [
        LayerSize.of(name, tensors, dense_weights[name], ranks.get(name), name in grouped)
        for name, tensors in layers.items()
    ]
    total, nonzero = sum(layer.weights for layer in counted), sum(layer.nonzero for layer in counted)
    dense_bits = FULL_BITS * total
    nominal = nonzero * bits
    coded = nominal
    if bits < FULL_BITS:
        coded = sum(tensor.coded_bits() for layer in counted for tensor in layer.tensors)
    return {
        "size": {
            "dense_weights": total,
            "nonzero": nonzero,
            "bits": bits,
            "a": {"definition": NOMINAL, "bits": nominal, "fraction": nominal / dense_bits},
            "b": {"definition": WITH_CODEBOOKS, "bits": coded, "fraction": coded / dense_bits},
            "c": {
                "definition": FILE,
                "bytes": file_bytes,
                "dense_bytes": dense_file_bytes,
                "fraction": file_bytes / dense_file_bytes,
            },
        },
        "density": {
            "total": nonzero / total,
            "channels": _channels(counted),
            "layers": [asdict(layer) for layer in counted],
        },
    }


def _channels(layers: Sequence[LayerSize]) -> list[int] | None:
    """[present, all] input channels of the convolutions stored as one tensor; None where there is none."""
    found = [layer.channels for layer in layers if layer.channels and len(layer.tensors[0].shape) == 4]
    return [sum(counts) for counts in zip(*found, strict=True)] if found else None
