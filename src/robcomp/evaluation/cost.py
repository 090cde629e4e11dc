"""Multiply-accumulate operations (MACs) of the convolutions and linear layers for one image, counted exactly."""

import torch
from torch import nn

from robcomp.models.layers import LowRank
from robcomp.models.parameterisation import dense_weight_counts, effective_weight, stored_weights, weight_layers
from robcomp.report.schema import LayerMacs, Macs

DEFINITION = (
    "Multiply-accumulate operations of the convolutions and linear layers for one image. dense: of the dense network. "
    "executed: as robcomp computes this network, low-rank layers as two smaller products, factored layers multiplied "
    "out once, zeros multiplied like any number. nonzero: those of the executed ones whose weight is not zero, what "
    "hardware that skips every zero would need. Not counted: biases, batch normalisation, activations, pooling."
)


@torch.no_grad()
def macs(model: nn.Module, shape: tuple[int, int, int]) -> Macs:
    """The block "macs" of report.json for images of `shape` [C, H, W]; `model` on the CPU, in eval mode.

    A layer's weights are each used once per output position (all of a linear layer's once).
    """
    layers, hooks = weight_layers(model), []
    positions: dict[str, int] = {}
    for name, layer in layers.items():

        def count(_module: nn.Module, _inputs: object, output: torch.Tensor, name: str = name) -> None:
            positions[name] = output[0, 0].numel()

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
                dense=positions[name] * dense[name],
                executed=positions[name] * sum(tensor.numel() for tensor in used),
                nonzero=positions[name] * sum(int(tensor.count_nonzero()) for tensor in used),
            )
        )
    return Macs(
        definition=DEFINITION,
        dense=sum(layer.dense for layer in counted),
        executed=sum(layer.executed for layer in counted),
        nonzero=sum(layer.nonzero for layer in counted),
        layers=counted,
    )
