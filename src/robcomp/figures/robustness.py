"""The figures of the protocols, each drawn from the JSON of its result."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robcomp.figures.table import STYLES
from robcomp.figures.training import pyplot
from robcomp.storage import write_atomic

DASHES = ("-", "--", ":", "-.")
GREY = "#6A6A6A"
WAYS = {"clean": "#0072B2", "alone": "#0072B2", "through": "#009E73"}  # colours; vermilion for what counts
LEVELS = 0.2  # eps up to here are shown in grey levels of 255


def curves(result: dict[str, Any], target: Path) -> None:
    """Accuracy over the rising budget: a colour a run, a dash an attack, a band for the interval; a panel a norm."""
    over, lines, chance = result["over"], result["curves"], 1 / result["data"]["classes"]
    norms = list(dict.fromkeys(line["attack"]["norm"] for line in lines)) if over == "eps" else [""]
    colours = _looks([line["run"] for line in lines])
    dashes = dict(zip(dict.fromkeys(line["name"] for line in lines), DASHES * len(lines), strict=False))
    plt = pyplot()
    figure, panels = plt.subplots(1, len(norms), figsize=(7.2 * len(norms), 4.8), squeeze=False, layout="constrained")
    try:
        for axes, norm in zip(panels[0], norms, strict=True):
            chosen = [line for line in lines if not norm or line["attack"]["norm"] == norm]
            shown = [_down_to(line["points"], chance if norm else 0) for line in chosen]
            unit = _unit([point[over] for points in shown for point in points]) if norm == "Linf" else 1
            for line, points in zip(chosen, shown, strict=True):
                colour, marker = colours[line["run"]]
                _line(
                    axes,
                    [unit * point[over] for point in points],
                    points,
                    colour,
                    marker=marker,
                    ls=dashes[line["name"]],
                    label=f"{line['run']}, {line['name']}",
                )
            if norm:
                _threats(axes, result, norm, unit, colours)
                label = f"eps ({norm}{', in 1/255' if unit > 1 else ''})"
            else:
                label = "steps of the attack"
                _steps(axes, sorted({point[over] for line in chosen for point in line["points"]}))
            _dress(axes, label, chance)
        _save(figure, f"{_data(result)}: accuracy over {over}", target)
    finally:
        plt.close(figure)


def transfer(result: dict[str, Any], target: Path) -> None:
    """A heat map for each attack where there is one eps; else accuracy over eps, a panel a source, a line a target."""
    by_attack: dict[str, list[dict[str, Any]]] = {}
    for matrix in result["matrices"]:
        by_attack.setdefault(matrix["name"], []).append(matrix)
    draw = _heat_maps if all(len(matrices) == 1 for matrices in by_attack.values()) else _transfer_lines
    draw(result, by_attack, target)


def combine(result: dict[str, Any], target: Path) -> None:
    """Each network and way of attack as a point with its interval, a panel an attack; the adaptive one stands out."""
    groups = list(dict.fromkeys(row["attack"] for row in result["rows"]))
    rows = {name: [row for row in result["rows"] if row["attack"] == name] for name in groups}
    plt = pyplot()
    height = 0.34 * len(result["rows"]) + 0.5 * len(groups) + 1
    figure, panels = plt.subplots(
        len(groups),
        1,
        figsize=(8.4, height),
        squeeze=False,
        sharex=True,
        layout="constrained",
        height_ratios=[len(rows[name]) + 0.6 for name in groups],
    )
    try:
        for axes, name in zip(panels[:, 0], groups, strict=True):
            for place, row in enumerate(rows[name]):
                colour = WAYS.get(row["way"], "#D55E00")
                low, high = (100 * abs(bound - row["value"]) for bound in row["interval"])
                axes.errorbar(100 * row["value"], place, xerr=[[low], [high]], fmt="o", color=colour, capsize=3, ms=6)
                axes.annotate(
                    f"{100 * row['value']:.1f}",
                    (100 * row["value"], place),
                    xytext=(0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize="x-small",
                    color=colour,
                )
            axes.set_yticks(range(len(rows[name])), [row["said"] for row in rows[name]], fontsize="small")
            axes.set(ylim=(len(rows[name]) - 0.4, -0.8), xlim=(-2, 102))
            axes.set_title("worst case over all" if name == "worst_case" else name, loc="left", fontsize="medium")
            axes.grid(axis="x", alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        panels[-1, 0].set_xlabel("accuracy in %, with 95 % interval")
        _save(figure, f"{_data(result)}: alone and combined", target)
    finally:
        plt.close(figure)


def _heat_maps(result: dict[str, Any], by_attack: dict[str, list[dict[str, Any]]], target: Path) -> None:
    targets = [cell["target"] for cell in result["clean"]]
    sources = list(dict.fromkeys(cell["source"] for cell in result["matrices"][0]["cells"]))
    plt = pyplot()
    width, height = 2.4 + 1.5 * len(targets), 2.2 + 0.75 * (len(sources) + 1)
    figure, panels = plt.subplots(
        1, len(by_attack), figsize=(width * len(by_attack), height), squeeze=False, layout="constrained"
    )
    try:
        for axes, (name, (matrix,)) in zip(panels[0], by_attack.items(), strict=True):
            cells = [result["clean"], *([c for c in matrix["cells"] if c["source"] == source] for source in sources)]
            shown = axes.imshow(
                [[100 * cell["value"] for cell in row] for row in cells],
                cmap="cividis",
                vmin=0,
                vmax=100,
                aspect="auto",
            )
            for i, row in enumerate(cells):
                for j, cell in enumerate(row):
                    _write(axes, i, j, cell)
            axes.axhline(0.5, color="white", lw=5)
            axes.set_xticks(range(len(targets)), [label.replace(" ", "\n") for label in targets], fontsize="small")
            axes.set_yticks(range(len(sources) + 1), ["clean images", *sources], fontsize="small")
            axes.set(xlabel="shown to", ylabel="made on")
            axes.set_title(f"{name}, {matrix['attack']['norm']} eps {matrix['eps']:.4g}", fontsize="medium")
            axes.spines[:].set_visible(False)
        figure.colorbar(shown, ax=panels[0], label="accuracy in %", fraction=0.05)
        _save(figure, f"{_data(result)}: transfer (framed: white box)", target)
    finally:
        plt.close(figure)


def _write(axes: Any, i: int, j: int, cell: dict[str, Any]) -> None:
    """A cell's figure and interval; a frame around a white-box one."""
    colour = "black" if cell["value"] > 0.5 else "white"
    low, high = (100 * bound for bound in cell["interval"])
    axes.text(j, i - 0.1, f"{100 * cell['value']:.1f}", ha="center", va="center", color=colour, fontsize="large")
    axes.text(j, i + 0.24, f"[{low:.1f}, {high:.1f}]", ha="center", va="center", color=colour, fontsize="x-small")
    if cell.get("white_box"):
        from matplotlib.patches import Rectangle

        axes.add_patch(Rectangle((j - 0.46, i - 0.42), 0.92, 0.84, fill=False, ec="#D55E00", lw=2.5))


def _transfer_lines(result: dict[str, Any], by_attack: dict[str, list[dict[str, Any]]], target: Path) -> None:
    targets = [cell["target"] for cell in result["clean"]]
    sources = list(dict.fromkeys(cell["source"] for cell in result["matrices"][0]["cells"]))
    looks = _looks(targets)
    plt = pyplot()
    figure, panels = plt.subplots(
        len(by_attack),
        len(sources),
        figsize=(5.6 * len(sources), 4.4 * len(by_attack)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    try:
        for row, (name, matrices) in zip(panels, by_attack.items(), strict=True):
            norm = matrices[0]["attack"]["norm"]
            unit = _unit([matrix["eps"] for matrix in matrices]) if norm == "Linf" else 1
            for axes, source in zip(row, sources, strict=True):
                for label in targets:
                    cells = [c for m in matrices for c in m["cells"] if (c["source"], c["target"]) == (source, label)]
                    colour, marker = looks[label]
                    _line(
                        axes,
                        [unit * matrix["eps"] for matrix in matrices],
                        cells,
                        colour,
                        marker=marker,
                        ls="-" if cells[0]["white_box"] else "--",
                        label=f"{label}{' (white box)' if cells[0]['white_box'] else ''}",
                    )
                _dress(axes, f"eps ({norm}{', in 1/255' if unit > 1 else ''})", 1 / result["data"]["classes"])
                axes.set_title(f"{name} made on {source}", fontsize="medium")
        _save(figure, f"{_data(result)}: transfer", target)
    finally:
        plt.close(figure)


def _line(axes: Any, x: Sequence[float], points: Sequence[dict[str, Any]], colour: str, **style: Any) -> None:
    """Proportions in percent over x, with a band between the ends of their intervals."""
    low, high = (np.array([100 * point["interval"][end] for point in points]) for end in (0, 1))
    axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
    axes.plot(x, [100 * point["value"] for point in points], color=colour, lw=1.8, ms=5, **style)


def _down_to(points: list[dict[str, Any]], chance: float) -> list[dict[str, Any]]:
    """The points up to the first below chance: what follows says no more, and would press the others together."""
    above = sum(point["value"] >= chance for point in points)
    return points[: above + 1]


def _dress(axes: Any, label: str, chance: float) -> None:
    axes.axhline(100 * chance, color=GREY, lw=1, ls=(0, (1, 2)))
    axes.annotate(
        "chance",
        (1, 100 * chance),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        ha="right",
        textcoords="offset points",
        fontsize="small",
        color=GREY,
    )
    axes.set(xlabel=label, ylabel="accuracy in %", ylim=(-2, 102))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="best", handlelength=3.2)


def _threats(axes: Any, result: dict[str, Any], norm: str, unit: float, colours: dict[str, tuple[str, str]]) -> None:
    """A vertical line at each eps that a run was trained against."""
    for eps in sorted({run["threat"]["eps"] for run in result["runs"] if run["threat"]["norm"] == norm}):
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


def _steps(axes: Any, values: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()


def _unit(values: Sequence[float]) -> int:
    """255 where all eps are small enough to be read in grey levels, 1 elsewhere."""
    return 255 if max(values) <= LEVELS else 1


def _looks(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Label -> (colour, marker), blue and vermilion first."""
    order = [STYLES[2], STYLES[3], STYLES[4], STYLES[1], STYLES[5], STYLES[6], STYLES[0]]
    return dict(zip(dict.fromkeys(labels), order * len(labels), strict=False))


def _data(result: dict[str, Any]) -> str:
    return f"{result['data']['name']}, {result['data']['test']:,} test images"


def _save(figure: Any, title: str, target: Path) -> None:
    figure.suptitle(title, fontsize="large")
    write_atomic(target, lambda path: figure.savefig(path, dpi=150, format="png"))
