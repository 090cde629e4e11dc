"""The course of a training run as a figure: loss and accuracies over the epochs of all stages."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from robcomp.errors import UserError
from robcomp.storage import write_atomic

# key of the epoch event, label, colour, line style; dotted lines are the training batches
ACCURACIES = [
    ("val_clean", "clean, held out", "#0072B2", "-"),
    ("clean", "clean, training batches", "#0072B2", ":"),
    ("val_robust", "robust, held out", "#D55E00", "-"),
    ("robust", "robust, training batches", "#D55E00", ":"),
]


def pyplot() -> ModuleType:
    """matplotlib.pyplot drawing into files; UserError with the install command where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        raise UserError(
            "figures need matplotlib, which is not installed; run: pip install 'robcomp[figures]'"
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def training_curves(log: Path, target: Path) -> Path:
    """Draw loss and clean and robust accuracy over the epochs in `log` (log.jsonl) to the PNG `target`; returns it.

    Raises UserError when the log holds no epoch or matplotlib is not installed.
    """
    events = epochs(log)
    if not events:
        raise UserError(f"{log} holds no finished epoch, so there is no curve to draw; train for one epoch at least.")
    plt = pyplot()
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(8, 5.6), sharex=True, height_ratios=(1, 1.7), layout="constrained"
    )
    try:
        _line(upper, events, "loss", "loss", "#444444", "-", scale=1)
        for key, label, colour, style in ACCURACIES:
            _line(lower, events, key, label, colour, style, scale=100)
        _mark_stages(upper, lower, events)
        upper.set_ylabel("training loss")
        upper.set_ylim(bottom=0)
        lower.set(xlabel="epoch", ylabel="accuracy in %", ylim=(0, 100), xlim=(0.5, len(events) + 0.5))
        lower.xaxis.get_major_locator().set_params(integer=True)
        for axes in (upper, lower):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
        write_atomic(target, lambda path: figure.savefig(path, dpi=150, format="png"))
    finally:
        plt.close(figure)
    return target


def epochs(log: Path) -> list[dict[str, Any]]:
    """The epoch events of a log in order; of an epoch that a resumed run repeated, the later event.

    Lines that are not JSON are passed over: a run that was killed may have left half a line.
    """
    if not log.is_file():
        raise UserError(f"no log at {log}; give the log.jsonl of a run directory.")
    events: dict[tuple[str, int], dict[str, Any]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if event.get("event") == "epoch":
            events[event["stage"], event["epoch"]] = event
    return list(events.values())


def _line(axes: Any, events: list[dict[str, Any]], key: str, label: str, colour: str, style: str, scale: float) -> None:
    """One curve over the epochs; epochs without a value (no attack, no held-out images) leave a gap."""
    values = [event.get(key) for event in events]
    if all(value is None for value in values):
        return
    heights = [float("nan") if value is None else scale * value for value in values]
    legend = label if key != "loss" else None
    width, marker = (1.8, "o") if style == "-" else (1.2, None)
    axes.plot(range(1, len(events) + 1), heights, style, color=colour, label=legend, lw=width, marker=marker, ms=3)


def _mark_stages(upper: Any, lower: Any, events: list[dict[str, Any]]) -> None:
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
