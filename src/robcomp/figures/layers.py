"""The figures of the analyses of finished runs, each drawn from the JSON of its result."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from robcomp.figures.robustness import GREY
from robcomp.figures.table import STYLES
from robcomp.figures.training import pyplot
from robcomp.report.render import percent
from robcomp.storage import write_atomic

COLOURS = [STYLES[place][0] for place in (2, 3, 4, 1, 5, 6, 0)]  # blue and vermilion first
KINDS = {"clean": (COLOURS[0], "o"), "robust": (COLOURS[1], "D")}
BAR = "#D9D9D9"
MIN_DENSITY = 1.0  # percent: the axis of the densities begins here, or lower where a layer is sparser
MARKED_EPOCHS = 60  # epochs up to which each has a marker


def sensitivity(result: dict[str, Any], target: Path) -> None:
    """The reduction over the layers: a column of panels a run, a row a share x; grey bars are the layers' densities."""
    networks, shares = result["networks"], result["values"]
    widths = [max(5.2, 1.5 + 0.4 * len(network["layers"])) for network in networks]
    plt = pyplot()
    figure, panels = plt.subplots(
        len(shares),
        len(networks),
        figsize=(sum(widths) + 0.6, 2.7 * len(shares) + 1.6),
        width_ratios=widths,
        squeeze=False,
        sharex="col",
        sharey=True,
        layout="constrained",
    )
    try:
        for column, network in enumerate(networks):
            names = [layer["name"] for layer in network["layers"]]
            for row, x in enumerate(shares):
                axes = panels[row, column]
                last = column == len(networks) - 1
                _densities(axes, network["layers"], labelled=last)
                _reductions(axes, [layer["pruned"][row] for layer in network["layers"]])
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
        _save(figure, f"{_data(result)}: pruning sensitivity", target)
    finally:
        plt.close(figure)


def histogram(result: dict[str, Any], target: Path) -> None:
    """The non-zero weights of each run as steps over the weight's value, counts on a logarithmic axis."""
    edges = result["edges"]
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 4.6 + 0.25 * len(result["runs"])), layout="constrained")
    try:
        for place, run in enumerate(result["runs"]):
            colour = COLOURS[place % len(COLOURS)]
            label = (
                f"{run['label']}: zeros {percent(run['zero_share'])}, clean {percent(run['clean'])}, "
                f"robust {percent(run['robust'])}"
            )
            axes.stairs(
                run["counts"], edges, color=colour, lw=_width(place, len(result["runs"])), label=label, zorder=3
            )
            axes.stairs(run["counts"], edges, color=colour, alpha=0.15, fill=True, lw=0)
        if any(any(run["counts"]) for run in result["runs"]):  # a logarithmic axis needs something to show
            axes.set_yscale("log")
        unit = "weight / largest magnitude of its run" if result["normalised"] else "weight"
        axes.set(xlabel=unit, ylabel="non-zero weights in the bin", xlim=(edges[0], edges[-1]))
        _plain(axes)
        figure.legend(loc="outside lower center", frameon=False, fontsize="small")
        _save(
            figure,
            f"Weights of the layers {result['layers']}" if result["layers"] else "Conv and linear weights",
            target,
        )
    finally:
        plt.close(figure)


def losses(result: dict[str, Any], target: Path) -> None:
    """The adversarial loss over the epochs, a line a run; below it a bar a run with the names of its stages."""
    runs = result["runs"]
    plt = pyplot()
    figure, (upper, lower) = plt.subplots(
        2,
        1,
        figsize=(8, 4.6 + 0.35 * len(runs)),
        sharex=True,
        height_ratios=(4, 0.3 + 0.35 * len(runs)),
        layout="constrained",
    )
    try:
        for place, run in enumerate(runs):
            colour = COLOURS[place % len(COLOURS)]
            heights = [epoch["adversarial_loss"] for epoch in run["epochs"]]
            upper.plot(
                range(1, len(heights) + 1),
                [float("nan") if h is None else h for h in heights],
                color=colour,
                lw=_width(place, len(runs)),
                marker="o" if len(heights) <= MARKED_EPOCHS else None,
                ms=4,
                label=run["label"],
            )
            _stages(upper, lower, run["stages"], place, colour)
        upper.set(ylabel="adversarial loss")
        upper.set_ylim(bottom=0)
        lower.set(
            xlabel="epoch",
            xlim=(0.5, max(len(run["epochs"]) for run in runs) + 0.5),
            ylim=(len(runs) - 0.5, -0.5),
            yticks=[],
            ylabel="stages",
        )
        lower.xaxis.get_major_locator().set_params(integer=True)
        _plain(upper)
        lower.spines[["top", "right", "left"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
        _save(figure, "Adversarial loss on the training batches", target)
    finally:
        plt.close(figure)


def _reductions(axes: Any, points: Sequence[dict[str, Any]]) -> None:
    """Both reductions over the layers; no line where the unpruned accuracy was 0."""
    for kind, (colour, marker) in KINDS.items():
        heights = [point[f"{kind}_reduction_percent"] for point in points]
        if None not in heights:
            axes.plot(range(len(heights)), heights, color=colour, marker=marker, ms=4.5, lw=1.6, label=kind)
    axes.axhline(0, color=GREY, lw=0.8)
    _plain(axes)


def _densities(axes: Any, layers: Sequence[dict[str, Any]], labelled: bool) -> None:
    """Grey bars behind the lines, on a logarithmic axis at the right; a layer that is all zeros has none."""
    heights = [100 * layer["density"] for layer in layers]
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


def _unpruned(network: dict[str, Any]) -> str:
    clean, robust = (percent(network["unpruned"][kind]["value"]) for kind in KINDS)
    return f"{network['run']}\nunpruned: clean {clean}, robust {robust}"


def _legend(figure: Any, axes: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [Line2D([], [], color=colour, marker=marker, label=kind) for kind, (colour, marker) in KINDS.items()]
    handles.append(Patch(color=BAR, label="density of the layer (right)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize="small")


def _stages(upper: Any, lower: Any, stages: Sequence[dict[str, Any]], place: int, colour: str) -> None:
    """The row `place` of the stages' bars, and a line where a stage ends."""
    ends = list(accumulate(stage["epochs"] for stage in stages))
    for number, (stage, end) in enumerate(zip(stages, ends, strict=True)):
        start = end - stage["epochs"]
        lower.barh(
            place,
            stage["epochs"],
            left=start + 0.5,
            height=0.8,
            color=colour,
            ec="white",
            lw=1.5,
            alpha=0.3 if number % 2 else 0.18,
        )
        lower.text(
            start + 0.5 + stage["epochs"] / 2,
            place,
            stage["name"],
            ha="center",
            va="center",
            fontsize="small",
            color="#333333",
            clip_on=True,
        )
        if number:
            upper.axvline(start + 0.5, color=colour, lw=1, ls="--", alpha=0.7)


def _width(place: int, lines: int) -> float:
    """The width of the line at `place`: those drawn first are wider, to be seen below others that run as they do."""
    return 1.3 + min(lines - 1 - place, 4)


def _plain(axes: Any) -> None:
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _data(result: dict[str, Any]) -> str:
    return f"{result['data']['name']}, {result['data']['test']:,} test images"


def _save(figure: Any, title: str, target: Path) -> None:
    figure.suptitle(title, fontsize="large")
    write_atomic(target, lambda path: figure.savefig(path, dpi=150, format="png"))
