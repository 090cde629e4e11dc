"""What all figures share: matplotlib, the palette, the axes' dress, the file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from robcomp.errors import UserError
from robcomp.report.accuracy import Proportion
from robcomp.report.results import Images
from robcomp.storage import write_atomic

# Okabe and Ito's palette, told apart by colour-blind readers too, and markers for print
STYLES = [
    ("#000000", "s"),
    ("#E69F00", "o"),
    ("#0072B2", "^"),
    ("#D55E00", "D"),
    ("#009E73", "v"),
    ("#CC79A7", "P"),
    ("#56B4E9", "X"),
]
LOOKS = [STYLES[place] for place in (2, 3, 4, 1, 5, 6, 0)]  # blue and vermilion first
COLOURS = [colour for colour, _ in LOOKS]
BLUE, VERMILION, GREEN = COLOURS[:3]
GREY = "#6A6A6A"
GREY_LEVELS = 0.2  # eps up to here are shown in grey levels of 255


def drawable() -> type[Any]:
    """matplotlib's Figure, which draws into files and leaves a user's own pyplot alone; UserError, with the install
    command, where matplotlib is missing."""
    try:
        from matplotlib import figure
    except ImportError:
        raise UserError(
            "figures need matplotlib, which is not installed; run: pip install 'robcomp[figures]'"
        ) from None
    return figure.Figure


@contextmanager
def subplots(*shape: int, figsize: tuple[float, float], **settings: Any) -> Iterator[tuple[Any, Any]]:
    """(figure, axes) of `shape`, as Figure.subplots makes them from `settings`; cleared on leaving."""
    figure = drawable()(figsize=figsize, layout="constrained")
    try:
        yield figure, figure.subplots(*shape, **settings)
    finally:
        figure.clear()


def save(figure: Any, title: str, path: Path) -> None:
    """Write the figure to the PNG `path`, whole or not at all; `title` stands above it where it is not empty."""
    if title:
        figure.suptitle(title, fontsize="large")
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def plain(axes: Any, grid: str = "both") -> None:
    """A faint grid, and no frame at the top and at the right."""
    axes.grid(axis=grid, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def looks(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Label -> (colour, marker), blue and vermilion first."""
    return dict(zip(dict.fromkeys(labels), LOOKS * len(labels), strict=False))


def images_of(data: Images) -> str:
    """The data set and the number of test images of an analysis, for a title."""
    return f"{data.name}, {data.test:,} test images"


def band(axes: Any, x: Sequence[float], points: Sequence[Proportion], colour: str, **style: Any) -> None:
    """Proportions in percent over x, with a band between the ends of their intervals."""
    low, high = (np.array([100 * point.interval[end] for point in points]) for end in (0, 1))
    axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
    axes.plot(x, [100 * point.value for point in points], color=colour, lw=1.8, ms=5, **style)


def accuracy_axes(axes: Any, label: str, chance: float) -> None:
    """An axis of accuracies in percent over `label`, with a line at the chance level."""
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
    plain(axes)
    axes.legend(frameon=False, fontsize="small", loc="best", handlelength=3.2)


def eps_unit(values: Sequence[float], norm: str) -> int:
    """255 where all eps are small enough to be read in grey levels, 1 elsewhere."""
    return 255 if norm == "Linf" and max(values) <= GREY_LEVELS else 1


def eps_label(norm: str, unit: int) -> str:
    """The name of an axis of eps in that unit."""
    return f"eps ({norm}{', in 1/255' if unit > 1 else ''})"


def line_width(place: int, lines: int) -> float:
    """The width of the line at `place`: those drawn first are wider, to be seen below others that run as they do."""
    return 1.3 + min(lines - 1 - place, 4)
