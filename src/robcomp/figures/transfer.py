"""The figure of a transfer analysis: heat maps, or accuracy over eps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robcomp.figures.style import (
    VERMILION,
    accuracy_axes,
    band,
    eps_label,
    eps_unit,
    images_of,
    looks,
    save,
    subplots,
)
from robcomp.report.results import TargetAccuracy, TransferCell, TransferMatrix, TransferResult

ByAttack = dict[str, list[TransferMatrix]]


def transfer(result: TransferResult, path: Path) -> None:
    """A heat map for each attack where there is one eps; else accuracy over eps, a panel a source, a line a target."""
    by_attack: ByAttack = {}
    for matrix in result.matrices:
        by_attack.setdefault(matrix.name, []).append(matrix)
    draw = _heat_maps if all(len(matrices) == 1 for matrices in by_attack.values()) else _transfer_lines
    draw(result, by_attack, path)


def _heat_maps(result: TransferResult, by_attack: ByAttack, path: Path) -> None:
    targets = [cell.target for cell in result.clean]
    sources = list(dict.fromkeys(cell.source for cell in result.matrices[0].cells))
    width, height = 2.4 + 1.5 * len(targets), 2.2 + 0.75 * (len(sources) + 1)
    with subplots(1, len(by_attack), figsize=(width * len(by_attack), height), squeeze=False) as (figure, panels):
        for axes, (name, (matrix,)) in zip(panels[0], by_attack.items(), strict=True):
            cells: list[Sequence[TargetAccuracy]] = [result.clean]
            cells += [[c for c in matrix.cells if c.source == source] for source in sources]
            shown = axes.imshow(
                [[100 * cell.value for cell in row] for row in cells],
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
            axes.set_title(f"{name}, {matrix.attack['norm']} eps {matrix.eps:.4g}", fontsize="medium")
            axes.spines[:].set_visible(False)
        figure.colorbar(shown, ax=panels[0], label="accuracy in %", fraction=0.05)
        save(figure, f"{images_of(result.data)}: transfer (framed: white box)", path)


def _write(axes: Any, i: int, j: int, cell: TargetAccuracy) -> None:
    """A cell's figure and interval; a frame around a white-box one."""
    colour = "black" if cell.value > 0.5 else "white"
    low, high = (100 * bound for bound in cell.interval)
    axes.text(j, i - 0.1, f"{100 * cell.value:.1f}", ha="center", va="center", color=colour, fontsize="large")
    axes.text(j, i + 0.24, f"[{low:.1f}, {high:.1f}]", ha="center", va="center", color=colour, fontsize="x-small")
    if isinstance(cell, TransferCell) and cell.white_box:
        from matplotlib.patches import Rectangle

        axes.add_patch(Rectangle((j - 0.46, i - 0.42), 0.92, 0.84, fill=False, ec=VERMILION, lw=2.5))


def _transfer_lines(result: TransferResult, by_attack: ByAttack, path: Path) -> None:
    targets = [cell.target for cell in result.clean]
    sources = list(dict.fromkeys(cell.source for cell in result.matrices[0].cells))
    styles = looks(targets)
    with subplots(
        len(by_attack), len(sources), figsize=(5.6 * len(sources), 4.4 * len(by_attack)), squeeze=False, sharey=True
    ) as (figure, panels):
        for row, (name, matrices) in zip(panels, by_attack.items(), strict=True):
            norm = matrices[0].attack["norm"]
            unit = eps_unit([matrix.eps for matrix in matrices], norm)
            for axes, source in zip(row, sources, strict=True):
                for label in targets:
                    cells = [c for m in matrices for c in m.cells if (c.source, c.target) == (source, label)]
                    colour, marker = styles[label]
                    band(
                        axes,
                        [unit * matrix.eps for matrix in matrices],
                        cells,
                        colour,
                        marker=marker,
                        ls="-" if cells[0].white_box else "--",
                        label=f"{label}{' (white box)' if cells[0].white_box else ''}",
                    )
                accuracy_axes(axes, eps_label(norm, unit), 1 / result.data.classes)
                axes.set_title(f"{name} made on {source}", fontsize="medium")
        save(figure, f"{images_of(result.data)}: transfer", path)
