"""The course of a training run as a figure: loss and accuracies over the epochs of all stages."""

from pathlib import Path
from typing import Any

from robcomp.errors import UserError
from robcomp.figures.style import BLUE, VERMILION, plain, save, subplots
from robcomp.report.log import Event, epochs

# key of the epoch event, label, colour, line style; dotted lines are the training batches
ACCURACIES = [
    ("val_clean", "clean, held out", BLUE, "-"),
    ("clean", "clean, training batches", BLUE, ":"),
    ("val_robust", "robust, held out", VERMILION, "-"),
    ("robust", "robust, training batches", VERMILION, ":"),
]


def training_curves(log: Path, path: Path) -> Path:
    """Draw loss and clean and robust accuracy over the epochs in `log` (log.jsonl) to the PNG `path`; returns it.

    Raises UserError when the log holds no epoch or matplotlib is not installed.
    """
    events = epochs(log)
    if not events:
        raise UserError(f"{log} holds no finished epoch, so there is no curve to draw; train for one epoch at least.")
    with subplots(2, 1, figsize=(8, 5.6), sharex=True, height_ratios=(1, 1.7)) as (figure, (upper, lower)):
        _line(upper, events, "loss", "loss", "#444444", "-", scale=1)
        for key, label, colour, style in ACCURACIES:
            _line(lower, events, key, label, colour, style, scale=100)
        _mark_stages(upper, lower, events)
        upper.set_ylabel("training loss")
        upper.set_ylim(bottom=0)
        lower.set(xlabel="epoch", ylabel="accuracy in %", ylim=(0, 100), xlim=(0.5, len(events) + 0.5))
        lower.xaxis.get_major_locator().set_params(integer=True)
        for axes in (upper, lower):
            plain(axes)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
        save(figure, "", path)
    return path


def _line(axes: Any, events: list[Event], key: str, label: str, colour: str, style: str, scale: float) -> None:
    """One curve over the epochs; epochs without a value (no attack, no held-out images) leave a gap."""
    values = [event.get(key) for event in events]
    if all(value is None for value in values):
        return
    heights = [float("nan") if value is None else scale * value for value in values]
    legend = label if key != "loss" else None
    width, marker = (1.8, "o") if style == "-" else (1.2, None)
    axes.plot(range(1, len(events) + 1), heights, style, color=colour, label=legend, lw=width, marker=marker, ms=3)


def _mark_stages(upper: Any, lower: Any, events: list[Event]) -> None:
    """A vertical line where a stage ends, and each stage's name above its first epoch."""
    for index, event in enumerate(events):
        if index and event["stage"] == events[index - 1]["stage"]:
            continue
        if index:
            for axes in (upper, lower):
                axes.axvline(index + 0.5, color="#888888", lw=1, ls="--")
        upper.annotate(
            event["stage"],
            (index + 0.5, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize="small",
            color="#444444",
        )
