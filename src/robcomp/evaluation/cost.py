"""Multiply-accumulate operations (MACs) of the convolutions and linear layers for one image, counted exactly."""

import torch
from torch import nn

from robcomp.models.layers import LowRank
from robcomp.models.parameterisation import dense_weight_counts, effective_weight, stored_weights, weight_layers
from robcomp.report.size import LayerMacs, Macs

DEFINITION = (
    "Multiply-accumulate operations of the convolutions and linear layers for one image. dense: of the dense network. "
    "executed: as robcomp computes this network, low-rank layers as two smaller products, factored layers multiplied "
    "out once, zeros multiplied like any number. nonzero: those of the executed ones whose weight is not zero, what "
    "hardware that skips every zero would need. Not counted: biases, batch normalisation, activations, pooling."
)


@torch.no_grad()
def macs(model: nn.Module, shape: tuple[int, int, int]) -> Macs:
    """The block "macs" of report.json for images of `shape` [C, H, W]; `model` on the CPU, in eval mode.

    A layer's weights are each used once for every position of its output (a linear layer's for every vector), and again
    in each call where a network calls a layer several times.
    """
    layers, hooks = weight_layers(model), []
    positions: dict[str, int] = {}
    for name, layer in layers.items():

        def count(layer: nn.Module, _inputs: object, output: torch.Tensor, name: str = name) -> None:
            outputs = output.shape[-1] if isinstance(layer, nn.Linear) or output.dim() == 2 else output.shape[1]
            positions[name] = positions.get(name, 0) + output[0].numel() // outputs

        hooks.append(layer.register_forward_hook(count))
    try:
        model(torch.zeros(1, *shape))
    finally:
        for hook in hooks:
            hook.remove()
    dense = dense_weight_counts(model)
    counted = []
    for name, layer in layers.items():
        used = list(stored_weights(layer).values()) if isinstance(layer, LowRank) else [effective_weight(layer)]
        counted.append(
            LayerMacs(
                name=name,
                dense=positions.get(name, 0) * dense[name],
                executed=positions.get(name, 0) * sum(tensor.numel() for tensor in used),
                nonzero=positions.get(name, 0) * sum(int(tensor.count_nonzero()) for tensor in used),
            )
        )
    return Macs(
        definition=DEFINITION,
        dense=sum(layer.dense for layer in counted),
        executed=sum(layer.executed for layer in counted),
        nonzero=sum(layer.nonzero for layer in counted),
        layers=counted,
    )
