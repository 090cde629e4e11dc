"""The figure of a sensitivity analysis: reduction of accuracy over the layers, with their densities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robcomp.figures.style import (
    BLUE,
    GREY,
    VERMILION,
    images_of,
    plain,
    save,
    subplots,
)
from robcomp.report.formatting import percent
from robcomp.report.results import LayerSensitivity, NetworkSensitivity, PrunedLayer, SensitivityResult

KINDS = {"clean": (BLUE, "o"), "robust": (VERMILION, "D")}
BAR = "#D9D9D9"
MIN_DENSITY = 1.0  # percent: the axis of the densities begins here, or lower where a layer is sparser


def sensitivity(result: SensitivityResult, path: Path) -> None:
    """The reduction over the layers: a column of panels a run, a row a share x; grey bars are the layers' densities."""
    networks, shares = result.networks, result.values
    widths = [max(5.2, 1.5 + 0.4 * len(network.layers)) for network in networks]
    with subplots(
        len(shares),
        len(networks),
        figsize=(sum(widths) + 0.6, 2.7 * len(shares) + 1.6),
        width_ratios=widths,
        squeeze=False,
        sharex="col",
        sharey=True,
    ) as (figure, panels):
        for column, network in enumerate(networks):
            names = [layer.name for layer in network.layers]
            for row, x in enumerate(shares):
                axes = panels[row, column]
                last = column == len(networks) - 1
                _densities(axes, network.layers, labelled=last)
                _reductions(axes, [layer.pruned[row] for layer in network.layers])
                axes.set_title(f"{100 * x:g} % of one layer pruned", loc="left", fontsize="small", color=GREY)
                axes.set_xlim(-0.6, len(names) - 0.4)
                if not column:
                    axes.set_ylabel("reduction in %")
            panels[-1, column].set_xticks(
                range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize="small"
            )
            panels[0, column].annotate(
                _unpruned(network),
                (0, 1),
                xycoords="axes fraction",
                xytext=(0, 20),
                textcoords="offset points",
                fontsize="medium",
                va="bottom",
            )
        _legend(figure, panels[0, 0])
        save(figure, f"{images_of(result.data)}: pruning sensitivity", path)


def _reductions(axes: Any, points: Sequence[PrunedLayer]) -> None:
    """Both reductions over the layers; no line where the unpruned accuracy was 0."""
    for kind, (colour, marker) in KINDS.items():
        reductions = [getattr(point, f"{kind}_reduction_percent") for point in points]
        heights = [reduction for reduction in reductions if reduction is not None]
        if len(heights) == len(points):
            axes.plot(range(len(heights)), heights, color=colour, marker=marker, ms=4.5, lw=1.6, label=kind)
    axes.axhline(0, color=GREY, lw=0.8)
    plain(axes, "y")


def _densities(axes: Any, layers: Sequence[LayerSensitivity], labelled: bool) -> None:
    """Grey bars behind the lines, on a logarithmic axis at the right; a layer that is all zeros has none."""
    heights = [100 * layer.density for layer in layers]
    behind = axes.twinx()
    behind.bar(range(len(heights)), heights, width=0.8, color=BAR, label="density of the layer")
    behind.set_yscale("log")
    sparsest = min((height for height in heights if height > 0), default=MIN_DENSITY)
    low = MIN_DENSITY
    while low >= sparsest:
        low /= 10
    behind.set_ylim(low, max(100, *heights))
    behind.minorticks_off()
    ticks = [low * 10**step for step in range(12) if low * 10**step <= 100.001]
    behind.set_yticks(ticks, [f"{tick:g}" for tick in ticks], color=GREY, fontsize="small")
    behind.spines[["top", "left"]].set_visible(False)
    if labelled:
        behind.set_ylabel("density in %", color=GREY)
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)


def _unpruned(network: NetworkSensitivity) -> str:
    clean, robust = (percent(getattr(network.unpruned, kind).value) for kind in KINDS)
    return f"{network.run}\nunpruned: clean {clean}, robust {robust}"


def _legend(figure: Any, axes: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Line2D([], [], color=colour, marker=marker, label=kind) for kind, (colour, marker) in KINDS.items()
    ]
    handles.append(Patch(color=BAR, label="density of the layer (right)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
