"""How much of each layer is kept: single weights, filters, columns, or filters by their batch norm's scale."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

from torch import Tensor, nn

from robcomp.errors import UserError, unknown
from robcomp.models.base import ConvBN
from robcomp.models.parameterisation import dense_weight_count, dense_weight_counts, effective_weight, weight_layers
from robcomp.projections import apportion, group_count, group_size
from robcomp.trainers.compressor import budget

SCHEMES = ("irregular", "filter", "column", "bn_filter")
BN_FILTER = "bn_filter"


@dataclass(frozen=True)
class LayerBudgets:
    """The number of units that each layer of a dense network keeps.

    scheme says what a unit is: irregular, a weight; filter, an output channel (the network's last layer, whose rows
    are the classes, is never pruned); column, one position of one input channel over all filters; bn_filter, a
    convolution's output channel by the scale of the batch norm that follows it (other layers are not pruned).

    ratios: what each layer keeps, {pattern of layer names: fraction of its units}; the longest pattern that matches a
    layer counts, so that a name goes before a wildcard; layers without a match stay dense.

    Without `ratios`, the same fraction of every layer but the first, which stays dense where it takes at most half of
    the budget and leaves room for the others (DNR calls this naive). The total is budget(model, ratio) weights, with
    all layers counted: exactly for irregular, and for groups as many as fit. Every layer keeps at least one unit.
    """

    kind: ClassVar[str] = "layer_budgets"

    ratio: float
    scheme: str = "irregular"
    ratios: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise unknown("method.scheme", self.scheme, SCHEMES)
        for pattern, ratio in self.ratios.items():
            if not 0 < ratio <= 1:
                raise UserError(
                    f"method.ratios: {pattern}={ratio:g} is out of range; the kept fraction of a layer lies in (0, 1]."
                )

    def counts(self, model: nn.Module) -> dict[str, int]:
        """Kept units by layer name, in the order of the network, of the layers that are pruned; see `check`."""
        layers = self._prunable(model)
        units = {name: _units(weight, self.scheme) for name, weight in layers.items()}
        if self.ratios:
            chosen = {name: self._ratio_of(name) for name in layers}
            return {name: max(1, math.floor(r * units[name] + 1e-9)) for name, r in chosen.items() if r is not None}
        total = budget(model, self.ratio) - self._always_dense(model)
        sizes = {name: _size(weight, self.scheme) for name, weight in layers.items()}
        first = next(iter(weight_layers(model)))
        if first in layers:
            least = sum(sizes.values()) - sizes[first]
            count = layers[first].numel()
            if 2 * count <= budget(model, self.ratio) and count + least <= total:
                total -= count
                del units[first], sizes[first]
        caps = list(units.values())  # and the ideal shares too: the same fraction of each
        return dict(zip(units, apportion(total, caps, caps, list(sizes.values()), [1] * len(units)), strict=True))

    def check(self, model: nn.Module) -> None:
        """UserError where the dense `model` (also one without weights) cannot be pruned so."""
        layers = self._prunable(model)
        if not layers:
            hint = "a convolution followed by a batch norm" if self.scheme == BN_FILTER else "a layer before the last"
            raise UserError(
                f"method.scheme={self.scheme} needs {hint}, and this network has none; choose method.scheme=irregular."
            )
        for pattern in self.ratios:
            if not any(fnmatchcase(name, pattern) for name in layers):
                raise UserError(
                    f"method.ratios: '{pattern}' matches no layer that method.scheme={self.scheme} prunes; they are "
                    f"{', '.join(layers)}."
                )
        if self.ratios:
            return
        least = self._always_dense(model) + sum(_size(weight, self.scheme) for weight in layers.values())
        count = dense_weight_count(model)
        if budget(model, self.ratio) < least:
            raise UserError(
                f"method.ratio={self.ratio:g} allows {budget(model, self.ratio):,} of {count:,} weights, but what "
                f"method.scheme={self.scheme} leaves dense and one unit of each other layer take {least:,}; give "
                f"method.ratio={min(1, least / count + 5e-5):.4f} or more, or each layer's own in method.ratios."
            )

    def _prunable(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights of the layers that the scheme can prune, by layer name."""
        layers = {name: effective_weight(layer) for name, layer in weight_layers(model).items()}
        if self.scheme == BN_FILTER:
            names = scales(model)
            return {name: weight for name, weight in layers.items() if name in names}
        if self.scheme == "filter":
            layers.popitem()
        return layers

    def _always_dense(self, model: nn.Module) -> int:
        """The number of weights in layers that the scheme cannot prune."""
        prunable = self._prunable(model)
        return sum(count for name, count in dense_weight_counts(model).items() if name not in prunable)

    def _ratio_of(self, layer: str) -> float | None:
        """The fraction that `ratios` gives this layer, None where no pattern matches."""
        matching = [pattern for pattern in self.ratios if fnmatchcase(layer, pattern)]
        return self.ratios[max(matching, key=lambda pattern: (len(pattern), pattern))] if matching else None


def scales(model: nn.Module) -> dict[str, str]:
    """The convolutions that a batch norm follows: {layer name: parameter name of the batch norm's scale}."""
    return {f"{name}.conv": f"{name}.bn.weight" for name, m in model.named_modules() if isinstance(m, ConvBN)}


def _units(weight: Tensor, scheme: str) -> int:
    """How many units a layer has."""
    if scheme == "irregular":
        return weight.numel()
    return group_count(weight.shape, "filter" if scheme == BN_FILTER else scheme)


def _size(weight: Tensor, scheme: str) -> int:
    """The weights in one unit of a layer."""
    if scheme == "irregular":
        return 1
    return group_size(weight.shape, "filter" if scheme == BN_FILTER else scheme)
