"""How each layer holds its weight: dense, as U V + C, or as U V of low rank. Serialisable, so that a checkpoint can be
rebuilt."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, ClassVar, TypeGuard

from torch import Tensor, nn

from robcomp.models.layers import Composite, Factored, LowRank


@dataclass(frozen=True)
class Parameterisation:
    """What a network's layers are rebuilt as; `kind` names it in files and cache keys."""

    kind: ClassVar[str]

    def resolve(self, model: nn.Module) -> "Parameterisation":
        """This very form; or, of a rule that depends on the weights, the form that it chooses for `model`."""
        return self

    def layer(self, name: str, dense: nn.Conv2d | nn.Linear, empty: bool) -> nn.Module:
        """What stands in for the layer `name`; with `empty`, what its tensors hold does not matter."""
        return dense


@dataclass(frozen=True)
class Dense(Parameterisation):
    """Every layer keeps its weight as one tensor."""

    kind: ClassVar[str] = "dense"


@dataclass(frozen=True)
class FactoredForm(Parameterisation):
    """Every conv and linear layer holds W = U V + C, with a fixed identity beside U or V if `identity`."""

    kind: ClassVar[str] = "factored"

    identity: bool = True

    def layer(self, name: str, dense: nn.Conv2d | nn.Linear, empty: bool) -> nn.Module:
        return Factored(dense, self.identity)


@dataclass(frozen=True)
class LowRankForm(Parameterisation):
    """The layers named in `ranks` hold W = U V of that rank; the others stay dense."""

    kind: ClassVar[str] = "low_rank"

    ranks: Mapping[str, int]

    def layer(self, name: str, dense: nn.Conv2d | nn.Linear, empty: bool) -> nn.Module:
        return LowRank(dense, self.ranks[name], empty) if name in self.ranks else dense


KINDS = {form.kind: form for form in (Dense, FactoredForm, LowRankForm)}

WeightLayer = nn.Conv2d | nn.Linear | Composite


def weight_layers(model: nn.Module) -> dict[str, WeightLayer]:
    """The conv and linear layers by name, in the order of the network."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | Composite)}


def factorable(layer: WeightLayer) -> TypeGuard[nn.Conv2d | nn.Linear]:
    """Whether a layer is dense and may be factored: grouped convolutions (as published) may not."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def stored_weights(layer: WeightLayer) -> dict[str, Tensor]:
    """The tensors that hold a layer's weight: {"weight"}, {"U", "V", "C"} or {"U", "V"}."""
    return layer.stored() if isinstance(layer, Composite) else {"weight": layer.weight}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """All tensors that compression may touch, by their state-dict names: conv and linear weights or their factors."""
    return {
        f"{name}.{part}": tensor
        for name, layer in weight_layers(model).items()
        for part, tensor in stored_weights(layer).items()
    }


def prunable_parameters(model: nn.Module) -> dict[str, Tensor]:
    """What pruning may set to zero, by name: conv and linear weights (or factors), then the scales of batch norms."""
    norms = {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
    }
    return weights(model) | norms


def effective_weight(layer: WeightLayer) -> Tensor:
    """The weight that a layer computes with, in its dense shape."""
    if isinstance(layer, Factored) and layer.multiplied_out is not None:
        return layer.multiplied_out
    return layer.weight() if isinstance(layer, Composite) else layer.weight


def dense_weight_counts(model: nn.Module) -> dict[str, int]:
    """How many weights each conv and linear layer has when dense; their sum is the N of every ratio."""
    return {
        name: prod(layer.shape if isinstance(layer, Composite) else layer.weight.shape)
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
            layer.multiplied_out = layer.weight()
        yield
    finally:
        for layer in layers:
            layer.multiplied_out = None


def parameterise(model: nn.Module, form: Parameterisation, empty: bool = False) -> None:
    """Rebuild the layers of a dense network in `form`, in place: computing the same, or its nearest of low rank.

    Grouped convolutions stay dense. A network that is already in `form` is left alone. `empty`: a state dict will fill
    the tensors, so what they hold does not matter.
    """
    present, form = form_of(model), form.resolve(model)
    if present == form:
        return
    if not isinstance(present, Dense):
        raise ValueError(f"cannot turn {present} into {form}: only a dense network can be re-parameterised")
    for name, layer in weight_layers(model).items():
        if factorable(layer):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, form.layer(name, layer, empty))


def restore(model: nn.Module, spec: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Bring a freshly built dense network into the form of `spec` and fill it with the state dict `tensors`."""
    parameterise(model, from_spec(spec), empty=True)
    model.load_state_dict(tensors)


def multiplied_out(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the dense network that computes the same, up to rounding: each layer's weight as one tensor."""
    state = dict(model.state_dict())
    for name, layer in weight_layers(model).items():
        if isinstance(layer, Composite):
            for part in layer.parts:
                del state[f"{name}.{part}"]
            state[f"{name}.weight"] = layer.weight().detach()
    return state


def form_of(model: nn.Module) -> Parameterisation:
    """The parameterisation that a network is in."""
    layers = weight_layers(model)
    for layer in layers.values():
        if isinstance(layer, Factored):
            return FactoredForm(layer.identity)
    ranks = {name: layer.rank for name, layer in layers.items() if isinstance(layer, LowRank)}
    return LowRankForm(ranks) if ranks else Dense()


def to_spec(form: Parameterisation) -> dict[str, Any]:
    """`form` as JSON."""
    return {"kind": form.kind, **asdict(form)}


def from_spec(spec: dict[str, Any]) -> Parameterisation:
    """The inverse of `to_spec`."""
    fields = dict(spec)
    return KINDS[fields.pop("kind")](**fields)
