"""A folded copy of a network for attacks: fewer, cheaper passes for the same gradient.

An attack needs many passes during which the weights stand still. So it runs on a snapshot: batch norm (in eval mode an
affine map) folded into the convolution before it, factored weights multiplied out, and all cast once.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robcomp.models.base import ConvBN
from robcomp.models.layers import Composite, LowRank
from robcomp.models.parameterisation import WeightLayer, effective_weight


@dataclass(frozen=True)
class _Folded:
    """A layer of the snapshot, and where its numbers come from."""

    plain: nn.Conv2d | nn.Linear
    weight: Callable[[], Tensor]
    bias: Tensor | None
    bn: nn.BatchNorm2d | None

    def refresh(self) -> None:
        weight, bias = self.weight(), self.bias
        if self.bn is not None:
            mean, variance = self.bn.running_mean, self.bn.running_var
            if mean is None or variance is None:
                raise ValueError("a batch norm without running statistics cannot be folded")
            scale = self.bn.weight * torch.rsqrt(variance + self.bn.eps)
            shift = self.bn.bias - mean * scale
            weight = weight * scale.view(-1, 1, 1, 1)
            bias = shift if bias is None else shift + bias * scale
        self.plain.weight.copy_(weight)
        if self.plain.bias is not None and bias is not None:
            self.plain.bias.copy_(bias)


class Snapshot(nn.Module):
    """A copy of `model` that computes the same logits as its eval mode, up to the rounding of `dtype`."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.dtype, self.memory_format = dtype, memory_format
        self.folded: list[_Folded] = []
        self.kept: list[tuple[Tensor, Tensor]] = []  # (source, copy) of what is neither folded nor multiplied out
        self.net = self._copy(model)
        self.net.eval().requires_grad_(False)
        self.refresh()

    def _copy(self, module: nn.Module) -> nn.Module:
        if isinstance(module, ConvBN):
            return self._layer(module.conv, module.bn)
        if isinstance(module, WeightLayer):
            return self._layer(module, None)
        shell = copy.copy(module)
        shell._modules = {name: self._copy(child) for name, child in module.named_children()}
        for kind, wrap in (("_parameters", nn.Parameter), ("_buffers", Tensor.detach)):
            tensors = {name: tensor for name, tensor in getattr(module, kind).items() if tensor is not None}
            copies = {name: wrap(tensor.detach().clone()) for name, tensor in tensors.items()}
            setattr(shell, kind, copies)
            self.kept += [(tensors[name], tensor) for name, tensor in copies.items()]
        return shell

    def _layer(self, layer: WeightLayer, bn: nn.BatchNorm2d | None) -> nn.Module:
        if isinstance(layer, LowRank):  # stays two products: they are the smaller ones
            inner = self._plain(lambda: layer.kernels()[0], None, None, layer.conv or {})
            return nn.Sequential(inner, self._plain(lambda: layer.kernels()[1], layer.bias, bn, {}))
        how = layer.conv or {} if isinstance(layer, Composite) else _geometry(layer)
        return self._plain(lambda: effective_weight(layer), layer.bias, bn, how)

    def _plain(
        self, weight: Callable[[], Tensor], bias: Tensor | None, bn: nn.BatchNorm2d | None, geometry: dict[str, Any]
    ) -> nn.Conv2d | nn.Linear:
        now = weight()
        shape, biased = now.shape, bn is not None or bias is not None
        plain: nn.Conv2d | nn.Linear
        if len(shape) == 2:
            plain = nn.Linear(shape[1], shape[0], biased)
        else:
            inputs, kernel = shape[1] * geometry.get("groups", 1), (shape[2], shape[3])
            plain = nn.Conv2d(inputs, shape[0], kernel, bias=biased, **geometry)
        plain = plain.to(now.device, self.dtype).to(memory_format=self.memory_format)
        self.folded.append(_Folded(plain, weight, bias, bn))
        return plain

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the model's present weights and running statistics."""
        for layer in self.folded:
            layer.refresh()
        for source, target in self.kept:
            target.copy_(source)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if x.dim() == 4:
            x = x.contiguous(memory_format=self.memory_format)
        return self.net(x).float()


def _geometry(layer: nn.Conv2d | nn.Linear) -> dict[str, Any]:
    if isinstance(layer, nn.Linear):
        return {}
    return {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
