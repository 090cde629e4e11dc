"""The figure of a rebuilt table: accuracy against compressed size, our curves beside the published ones."""

from pathlib import Path
from typing import Any

from robcomp.figures.style import STYLES, plain, save, subplots
from robcomp.report.results import TableResult

GREYS = ("#9A9A9A", "#5A5A5A", "#C4C4C4", "#2E2E2E")


def draw(table: TableResult, path: Path) -> Path:
    """Draw an assembled table to the PNG `path`: one panel an accuracy, ours solid, published dashed; returns it.

    A row without a grid has one size only and is drawn as a level line. UserError where matplotlib is not installed.
    """
    keys = table.accuracy
    with subplots(1, len(keys), figsize=(5.2 * len(keys), 5.2), squeeze=False) as (figure, panels):
        looks = _looks(table)
        for axes, key in zip(panels[0], keys, strict=True):
            for label in looks:
                _published(axes, table, label, key, looks[label])
                _ours(axes, table, label, key, looks[label])
            _dress(axes, key, table.x)
        published = any(curve.points for curve in table.published)
        figure.legend(
            handles=_legend(looks, published),
            loc="outside lower center",
            ncols=min(5, len(looks) + 2),
            frameon=False,
            fontsize="small",
        )
        save(figure, f"{table.title}, scale {table.scale}", path)
    return path


def _looks(table: TableResult) -> dict[str, tuple[str, str | None]]:
    """Label -> (colour, marker) in the table's order; rows without a grid are grey and have no marker."""
    single = {record.label: not record.point for record in table.records}
    count = len(STYLES)  # beyond as many rows the colours come again, with other markers
    pairs = [(STYLES[n % count][0], STYLES[(n + n // count) % count][1]) for n in range(len(single))]
    styles, greys = iter(pairs), iter(GREYS * len(single))
    return {label: (next(greys), None) if alone else next(styles) for label, alone in single.items()}


def _ours(axes: Any, table: TableResult, label: str, key: str, look: tuple[str, str | None]) -> None:
    """Our runs of a row that finished and have `key`, with 95 % bars."""
    colour, marker = look
    runs = [record.result for record in table.records if record.label == label and record.result is not None]
    runs = sorted((run for run in runs if key in run.accuracy), key=lambda run: run.size[table.x].fraction)
    if not marker and runs:
        axes.axhline(100 * runs[0].accuracy[key].value, color=colour, lw=1.6)
    if marker and runs:
        found = [run.accuracy[key] for run in runs]
        axes.errorbar(
            [100 * run.size[table.x].fraction for run in runs],
            [100 * entry.value for entry in found],
            yerr=[
                [100 * (entry.value - entry.interval[0]) for entry in found],
                [100 * (entry.interval[1] - entry.value) for entry in found],
            ],
            color=colour,
            marker=marker,
            ms=5,
            lw=1.6,
            capsize=2,
            zorder=3,
        )


def _published(axes: Any, table: TableResult, label: str, key: str, look: tuple[str, str | None]) -> None:
    colour, marker = look
    for curve in table.published:
        if (curve.label, curve.key) != (label, key) or not curve.points:
            continue
        if marker is None:
            axes.axhline(curve.points[0][1], color=colour, lw=1.2, ls="--")
            continue
        sizes, heights = zip(*curve.points, strict=True)
        percent = [100 * size for size in sizes]
        axes.plot(percent, heights, "--", color=colour, lw=1.1, marker=marker, ms=4, mfc="white", alpha=0.9)


def _dress(axes: Any, key: str, x: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel=f"{x} size, % of the dense float32 model", ylabel="accuracy in %", ylim=(-2, 102))
    axes.set_title("clean" if key == "clean" else f"under {key.replace('_', ' ') if '_' in key else key.upper()}")
    plain(axes)


def _legend(looks: dict[str, tuple[str, str | None]], published: bool) -> list[Any]:
    """One entry a method and, where there are published figures, one for each of the two line styles."""
    from matplotlib.lines import Line2D

    methods = [
        Line2D([], [], color=colour, marker=marker, lw=1.6, label=label) for label, (colour, marker) in looks.items()
    ]
    ours = Line2D([], [], color="black", lw=1.6, label="solid: robcomp")
    paper = Line2D([], [], color="black", lw=1.1, ls="--", marker="o", ms=4, mfc="white", label="dashed: published")
    return [*methods, ours, paper] if published else methods
