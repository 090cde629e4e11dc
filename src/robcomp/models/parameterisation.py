"""How each layer holds its weight: dense, or as W = U V + C (ATMC). Serialisable, so a checkpoint can be rebuilt."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Dense:
    """Every layer keeps its weight as one tensor."""


@dataclass(frozen=True)
class FactoredForm:
    """Every conv and linear layer holds W = U V + C, with a fixed identity beside U or V if `identity`."""

    identity: bool = True


Parameterisation = Dense | FactoredForm
KINDS = {"dense": Dense, "factored": FactoredForm}


class Factored(nn.Module):
    """A conv or linear layer with weight W = U V + C on the matrix view out x (in kh kw), of full rank r = min of both.

    U [out, r], V [r, in*kh*kw], C [out, in*kh*kw]. With the identity, W = U (V + I) + C where V is square, and
    W = (U + I) V + C otherwise; I is neither stored nor counted. Either way W equals the dense weight at the start and
    the non-zeros are as many, but for U without the identity: it then starts as a stored identity on the rows in use.
    Source: ATMC (NeurIPS 2019), equation 4; the identity is in the published code (super_class.Conv2dsp_v2) only.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, identity: bool) -> None:
        super().__init__()
        dense = layer.weight.detach()
        matrix = dense.flatten(1).clone()
        out, inputs = matrix.shape
        self.shape, self.identity = tuple(dense.shape), identity
        self.square_v = inputs <= out  # r = in*kh*kw, so V is square
        zeros = matrix.new_zeros
        rank = min(out, inputs)
        U, V = zeros(out, rank), zeros(rank, inputs)
        if self.square_v:
            U = matrix
            if not identity:
                V = torch.diag((matrix != 0).any(0).to(matrix.dtype))
        else:
            V = matrix
            if not identity:
                U = torch.diag((matrix != 0).any(1).to(matrix.dtype))
        self.U, self.V, self.C = nn.Parameter(U), nn.Parameter(V), nn.Parameter(zeros(out, inputs))
        self.bias = layer.bias
        conv = isinstance(layer, nn.Conv2d)
        self.conv = {k: getattr(layer, k) for k in ("stride", "padding", "dilation")} if conv else None
        self.held: Tensor | None = None

    def weight(self) -> Tensor:
        """The effective weight in the dense layer's shape, built anew (float32, also under autocast)."""
        with torch.autocast(self.U.device.type, enabled=False):
            matrix = torch.addmm(self.C, self.U, self.V)
            if self.identity:
                matrix = matrix + (self.U if self.square_v else self.V)
            return matrix.view(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.held if self.held is not None else self.weight()
        if self.conv is None:
            return F.linear(x, weight, self.bias)
        return F.conv2d(x, weight, self.bias, **self.conv)


WeightLayer = nn.Conv2d | nn.Linear | Factored


def weight_layers(model: nn.Module) -> dict[str, WeightLayer]:
    """The conv and linear layers by name, in the order of the network."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | Factored)}


def stored_weights(layer: WeightLayer) -> dict[str, nn.Parameter]:
    """The tensors that hold a layer's weight: {"weight"} or {"U", "V", "C"}."""
    if isinstance(layer, Factored):
        return {"U": layer.U, "V": layer.V, "C": layer.C}
    return {"weight": layer.weight}


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """All tensors that compression may touch, by their state-dict names: conv and linear weights or their factors."""
    return {
        f"{name}.{part}": tensor
        for name, layer in weight_layers(model).items()
        for part, tensor in stored_weights(layer).items()
    }


def effective_weight(layer: WeightLayer) -> Tensor:
    """The weight that a layer computes with, in its dense shape."""
    if isinstance(layer, Factored):
        return layer.held if layer.held is not None else layer.weight()
    return layer.weight


def dense_weight_counts(model: nn.Module) -> dict[str, int]:
    """How many weights each conv and linear layer has when dense; their sum is the N of every ratio."""
    return {
        name: prod(layer.shape if isinstance(layer, Factored) else layer.weight.shape)
        for name, layer in weight_layers(model).items()
    }


def dense_weight_count(model: nn.Module) -> int:
    """The number of conv and linear weights of the dense network; biases and batch norm never count."""
    return sum(dense_weight_counts(model).values())


@contextmanager
def effective_weights(model: nn.Module) -> Iterator[None]:
    """Inside, every factored layer builds its weight once and reuses it (and its autograd graph) in each forward."""
    layers = [layer for layer in weight_layers(model).values() if isinstance(layer, Factored)]
    try:
        for layer in layers:
            layer.held = layer.weight()
        yield
    finally:
        for layer in layers:
            layer.held = None


def parameterise(model: nn.Module, form: Parameterisation) -> None:
    """Rebuild the layers of a dense network in `form`, in place and without changing what it computes.

    Grouped convolutions stay dense (as published). A network that is already in `form` is left alone.
    """
    present = form_of(model)
    if present == form:
        return
    if not isinstance(present, Dense):
        raise ValueError(f"cannot turn {present} into {form}: only a dense network can be re-parameterised")
    for name, layer in weight_layers(model).items():
        if isinstance(layer, nn.Conv2d) and layer.groups != 1:
            continue
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, Factored(layer, form.identity))


def form_of(model: nn.Module) -> Parameterisation:
    """The parameterisation that a network is in."""
    for layer in weight_layers(model).values():
        if isinstance(layer, Factored):
            return FactoredForm(layer.identity)
    return Dense()


def to_spec(form: Parameterisation) -> dict[str, Any]:
    """`form` as JSON."""
    kind = next(kind for kind, cls in KINDS.items() if isinstance(form, cls))
    return {"kind": kind, **asdict(form)}


def from_spec(spec: dict[str, Any]) -> Parameterisation:
    """The inverse of `to_spec`."""
    fields = dict(spec)
    return KINDS[fields.pop("kind")](**fields)
