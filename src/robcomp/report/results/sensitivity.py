"""What `robcomp sensitivity` writes."""

from dataclasses import dataclass
from typing import ClassVar

from robcomp.report.accuracy import Proportion, Settings
from robcomp.report.records import meaning
from robcomp.report.results.analysis import Analysis


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """A network's two accuracies."""

    clean: Proportion = meaning("on the unchanged images")
    robust: Proportion = meaning("worst case over the suite")


@dataclass(frozen=True, kw_only=True)
class PrunedLayer(Accuracies):
    """A network of which one layer is pruned."""

    x: float = meaning("the share of the layer's weights that is zero")
    left: int = meaning("stored non-zeros left in the layer")
    clean_reduction_percent: float | None = meaning(
        "100 (1 - accuracy after / accuracy before); negative where it rose, null where it was 0 before"
    )
    robust_reduction_percent: float | None = meaning("the same of the robust accuracy")


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """A layer, pruned by rising shares."""

    name: str = meaning("the layer")
    weights: int = meaning("weights of its dense form")
    nonzero: int = meaning("stored non-zeros in the run's network")
    density: float = meaning("`nonzero` / `weights`; the grey bars of the figure")
    pruned: list[PrunedLayer] = meaning("share by share")


@dataclass(frozen=True, kw_only=True)
class NetworkSensitivity:
    """A network, pruned layer by layer."""

    run: str = meaning("label of the run")
    unpruned: Accuracies = meaning("its accuracies as it is")
    layers: list[LayerSensitivity] = meaning("its conv and linear layers, in the network's order")


@dataclass(frozen=True, kw_only=True)
class SensitivityResult(Analysis):
    """`robcomp sensitivity`: how much accuracy is lost when a single layer is pruned."""

    SCHEMA: ClassVar[str] = "robcomp-sensitivity/1"

    definition: str = meaning("in words, what is measured")
    attacks: dict[str, Settings] = meaning("the settings of each attack of the suite")
    values: list[float] = meaning("the shares x, above 0 and up to 1")
    networks: list[NetworkSensitivity] = meaning("run by run")
