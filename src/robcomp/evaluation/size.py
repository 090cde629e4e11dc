"""The size of a network by three definitions, each said in words beside its number, and its exact densities."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robcomp.models.parameterisation import LowRankForm, dense_weight_counts, form_of, stored_weights, weight_layers
from robcomp.report.size import CountedSize, Density, FileSize, LayerSize, Size, TensorSize

FULL_BITS = 32

NOMINAL = (
    "The papers' size: the number of non-zero convolution and linear weights times the nominal bit width of the model "
    "(32 without quantisation). The fraction is of 32 bits for every weight of the dense network. No network can be "
    "rebuilt from this alone. Not counted: where the non-zeros are, codebooks, biases, batch normalisation, fixed "
    "identities of factored layers, header."
)
CODED = (
    "The size as the published ATMC code counts it: in a quantised model each convolution or linear tensor with n "
    "non-zeros of d distinct values counts n * b bits, b = ceil(log2(d)) (0 for one value), and a codebook of d "
    "entries of 32 bits, where 2^b < n; otherwise, and in a model without quantisation, n * 32 bits. The fraction is "
    "of 32 bits for every weight of the dense network. Not counted: where the non-zeros are, biases, batch "
    "normalisation, fixed identities of factored layers, header."
)
FILE = (
    "Real bytes of the model file as written to disk, everything included that rebuilding the network needs: "
    "positions, values, codebooks, biases, batch normalisation, header. The fraction is of the real bytes of the dense "
    "network as a float32 safetensors file."
)


def tensor_size(name: str, tensor: Tensor, stored_bytes: int | None = None) -> TensorSize:
    """Count `tensor`, of any shape: entries, non-zero entries, distinct values among these; -0.0 counts as zero."""
    values = tensor.detach()[tensor.detach() != 0]
    return TensorSize(
        name=name,
        shape=list(tensor.shape),
        weights=tensor.numel(),
        nonzero=values.numel(),
        distinct=torch.unique(values).numel(),
        bytes=stored_bytes,
    )


def coded_bits(tensor: TensorSize) -> int:
    """Bits by the published formula for a quantised model (ATMC code, inference_model.py).

    It asks whether the codebook has room for fewer values than there are non-zeros, not whether it saves bits: kept as
    published, so for a few tensors just above that line 32 bits each would be less.
    """
    width = max(tensor.distinct - 1, 0).bit_length()
    if 2**width < tensor.nonzero:
        return tensor.nonzero * width + tensor.distinct * FULL_BITS
    return tensor.nonzero * FULL_BITS


def layer_sizes(model: nn.Module, stored_bytes: Mapping[str, int] | None = None) -> list[LayerSize]:
    """Every convolution and linear layer of `model` counted, in the network's order.

    `stored_bytes`: the tensors' bytes in the file, by their names in the state dict.
    """
    dense, form = dense_weight_counts(model), form_of(model)
    ranks = form.ranks if isinstance(form, LowRankForm) else {}
    return [
        layer_size(
            name,
            stored := stored_weights(layer),
            dense[name],
            ranks.get(name),
            getattr(layer, "groups", 1) > 1,
            {part: count for part in stored if (count := (stored_bytes or {}).get(f"{name}.{part}")) is not None},
        )
        for name, layer in weight_layers(model).items()
    ]


def layer_size(
    name: str,
    tensors: Mapping[str, Tensor],
    weights: int,
    rank: int | None = None,
    grouped: bool = False,
    stored_bytes: Mapping[str, int] | None = None,
) -> LayerSize:
    """Count the stored `tensors` of the layer `name`, which has `weights` > 0 weights when dense.

    Channels and filters are those of a layer stored as one tensor; no channels of a grouped convolution, each of whose
    filters reads inputs of its own. `stored_bytes`: tensor -> its bytes in the file.
    """
    counted = [tensor_size(part, tensor, (stored_bytes or {}).get(part)) for part, tensor in tensors.items()]
    nonzero = sum(tensor.nonzero for tensor in counted)
    whole = tensors.get("weight")
    return LayerSize(
        name=name,
        weights=weights,
        nonzero=nonzero,
        density=nonzero / weights,
        rank=rank,
        channels=None if whole is None or grouped else present(whole, 1),
        filters=None if whole is None else present(whole, 0),
        tensors=counted,
    )


def present(weight: Tensor, axis: int) -> list[int]:
    """[slices of `weight` along `axis` with a non-zero, all slices]: 1 for input channels, 0 for filters."""
    slices = weight.detach().movedim(axis, 0).flatten(1)
    return [int((slices != 0).any(1).sum()), len(slices)]


def sizes(
    layers: Sequence[LayerSize], bits: int, file_bytes: int, dense_file_bytes: int, what: str = FILE
) -> tuple[Size, Density]:
    """The blocks "size" and "density" of report.json.

    `layers`: every convolution and linear layer, counted; `bits`: nominal width of the weights, 1 to 32, 32 without
    quantisation; `file_bytes`, `dense_file_bytes`: bytes of the model file and of the dense float32 file; `what` says
    in words what the former holds. Densities are non-zeros over dense weights, so a factored layer's can exceed 1.
    ValueError without layers, or if bits are out of range.
    """
    if not layers:
        raise ValueError("no layers: give every convolution and linear layer of the network")
    if not 1 <= bits <= FULL_BITS:
        raise ValueError(f"bits {bits}: give 1 to {FULL_BITS}")
    total, nonzero = sum(layer.weights for layer in layers), sum(layer.nonzero for layer in layers)
    nominal = coded = nonzero * bits
    if bits < FULL_BITS:
        coded = sum(coded_bits(tensor) for layer in layers for tensor in layer.tensors)
    dense_bits = FULL_BITS * total
    size = Size(
        dense_weights=total,
        nonzero=nonzero,
        bits=bits,
        nominal=CountedSize(definition=NOMINAL, bits=nominal, fraction=nominal / dense_bits),
        coded=CountedSize(definition=CODED, bits=coded, fraction=coded / dense_bits),
        file=FileSize(
            definition=what, bytes=file_bytes, dense_bytes=dense_file_bytes, fraction=file_bytes / dense_file_bytes
        ),
    )
    return size, Density(total=nonzero / total, channels=_channels(layers), layers=list(layers))


def _channels(layers: Sequence[LayerSize]) -> list[int] | None:
    """[present, all] input channels of the convolutions stored as one tensor; None where there is none."""
    found = [layer.channels for layer in layers if layer.channels and len(layer.tensors[0].shape) == 4]
    return [sum(counts) for counts in zip(*found, strict=True)] if found else None
