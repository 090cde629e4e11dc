"""The figure of a robustness curve: accuracy over eps or over the attack's steps."""

from pathlib import Path
from typing import Any

from robcomp.figures.style import (
    GREY,
    accuracy_axes,
    band,
    eps_label,
    eps_unit,
    images_of,
    looks,
    save,
    subplots,
)
from robcomp.report.results import CurvePoint, CurveResult

DASHES = ("-", "--", ":", "-.")


def curve(result: CurveResult, path: Path) -> None:
    """Accuracy over the rising budget: a colour a run, a dash an attack, a band for the interval; a panel a norm."""
    over, lines, chance = result.over, result.curves, 1 / result.data.classes
    norms = list(dict.fromkeys(line.attack["norm"] for line in lines)) if over == "eps" else [""]
    colours = looks([line.run for line in lines])
    dashes = dict(zip(dict.fromkeys(line.name for line in lines), DASHES * len(lines), strict=False))
    with subplots(1, len(norms), figsize=(7.2 * len(norms), 4.8), squeeze=False) as (figure, panels):
        for axes, norm in zip(panels[0], norms, strict=True):
            chosen = [line for line in lines if not norm or line.attack["norm"] == norm]
            shown = [_down_to(line.points, chance if norm else 0) for line in chosen]
            unit = eps_unit([point.budget for points in shown for point in points], norm)
            for line, points in zip(chosen, shown, strict=True):
                colour, marker = colours[line.run]
                band(
                    axes,
                    [unit * point.budget for point in points],
                    points,
                    colour,
                    marker=marker,
                    ls=dashes[line.name],
                    label=f"{line.run}, {line.name}",
                )
            if norm:
                _threats(axes, result, norm, unit, colours)
                label = eps_label(norm, unit)
            else:
                label = "steps of the attack"
                _steps(axes, sorted({point.budget for line in chosen for point in line.points}))
            accuracy_axes(axes, label, chance)
        save(figure, f"{images_of(result.data)}: accuracy over {over}", path)


def _down_to(points: list[CurvePoint], chance: float) -> list[CurvePoint]:
    """The points up to the first below chance: what follows says no more, and would press the others together."""
    above = sum(point.value >= chance for point in points)
    return points[: above + 1]


def _threats(axes: Any, result: CurveResult, norm: str, unit: float, colours: dict[str, tuple[str, str]]) -> None:
    """A vertical line at each eps that a run was trained against."""
    for eps in sorted({run.threat.eps for run in result.runs if run.threat.norm == norm}):
        axes.axvline(unit * eps, color=GREY, lw=1, ls="--")
        axes.annotate(
            "training eps",
            (unit * eps, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            va="top",
            textcoords="offset points",
            fontsize="small",
            color=GREY,
            rotation=90,
        )


def _steps(axes: Any, values: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
