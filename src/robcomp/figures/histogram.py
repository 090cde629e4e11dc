"""The figure of a weight histogram."""

from pathlib import Path

from robcomp.figures.style import (
    COLOURS,
    line_width,
    plain,
    save,
    subplots,
)
from robcomp.report.formatting import percent
from robcomp.report.results import HistogramResult


def histogram(result: HistogramResult, path: Path) -> None:
    """The non-zero weights of each run as steps over the weight's value, counts on a logarithmic axis."""
    edges = result.edges
    with subplots(figsize=(8, 4.6 + 0.25 * len(result.runs))) as (figure, axes):
        for place, run in enumerate(result.runs):
            colour = COLOURS[place % len(COLOURS)]
            label = (
                f"{run.label}: zeros {percent(run.zero_share)}, clean {percent(run.clean)}, "
                f"robust {percent(run.robust)}"
            )
            axes.stairs(run.counts, edges, color=colour, lw=line_width(place, len(result.runs)), label=label, zorder=3)
            axes.stairs(run.counts, edges, color=colour, alpha=0.15, fill=True, lw=0)
        if any(any(run.counts) for run in result.runs):  # a logarithmic axis needs something to show
            axes.set_yscale("log")
        unit = "weight / largest magnitude of its run" if result.normalised else "weight"
        axes.set(xlabel=unit, ylabel="non-zero weights in the bin", xlim=(edges[0], edges[-1]))
        plain(axes, "y")
        figure.legend(loc="outside lower center", frameon=False, fontsize="small")
        save(
            figure,
            f"Weights of the layers {result.layers}" if result.layers else "Conv and linear weights",
            path,
        )
