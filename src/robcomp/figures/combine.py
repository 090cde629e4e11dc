"""The figure of combined networks: accuracy alone and combined, under each way of attack."""

from pathlib import Path

from robcomp.figures.style import (
    BLUE,
    GREEN,
    VERMILION,
    images_of,
    plain,
    save,
    subplots,
)
from robcomp.report.results import CombineResult

COLOUR_OF = {"clean": BLUE, "alone": BLUE, "through": GREEN}  # of a way of attack; vermilion for what counts


def combine(result: CombineResult, path: Path) -> None:
    """Each network and way of attack as a point with its interval, a panel an attack; the adaptive one stands out."""
    groups = list(dict.fromkeys(row.attack for row in result.rows))
    rows = {name: [row for row in result.rows if row.attack == name] for name in groups}
    height = 0.34 * len(result.rows) + 0.5 * len(groups) + 1
    with subplots(
        len(groups),
        1,
        figsize=(8.4, height),
        squeeze=False,
        sharex=True,
        height_ratios=[len(rows[name]) + 0.6 for name in groups],
    ) as (figure, panels):
        for axes, name in zip(panels[:, 0], groups, strict=True):
            for place, row in enumerate(rows[name]):
                colour = COLOUR_OF.get(row.way, VERMILION)
                low, high = (100 * abs(bound - row.value) for bound in row.interval)
                axes.errorbar(100 * row.value, place, xerr=[[low], [high]], fmt="o", color=colour, capsize=3, ms=6)
                axes.annotate(
                    f"{100 * row.value:.1f}",
                    (100 * row.value, place),
                    xytext=(0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize="x-small",
                    color=colour,
                )
            axes.set_yticks(range(len(rows[name])), [row.said for row in rows[name]], fontsize="small")
            axes.set(ylim=(len(rows[name]) - 0.4, -0.8), xlim=(-2, 102))
            axes.set_title("worst case over all" if name == "worst_case" else name, loc="left", fontsize="medium")
            plain(axes, "x")
        panels[-1, 0].set_xlabel("accuracy in %, with 95 % interval")
        save(figure, f"{images_of(result.data)}: alone and combined", path)
