"""The figure of adversarial losses over the epochs of all stages."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from robcomp.figures.style import (
    COLOURS,
    line_width,
    plain,
    save,
    subplots,
)
from robcomp.report.results import LossesResult, StageEpochs

MARKED_EPOCHS = 60  # up to so many epochs each has a marker


def losses(result: LossesResult, path: Path) -> None:
    """The adversarial loss over the epochs, a line a run; below it a bar a run with the names of its stages."""
    runs = result.runs
    with subplots(
        2, 1, figsize=(8, 4.6 + 0.35 * len(runs)), sharex=True, height_ratios=(4, 0.3 + 0.35 * len(runs))
    ) as (figure, (upper, lower)):
        for place, run in enumerate(runs):
            colour = COLOURS[place % len(COLOURS)]
            heights = [epoch.adversarial_loss for epoch in run.epochs]
            upper.plot(
                range(1, len(heights) + 1),
                [float("nan") if h is None else h for h in heights],
                color=colour,
                lw=line_width(place, len(runs)),
                marker="o" if len(heights) <= MARKED_EPOCHS else None,
                ms=4,
                label=run.label,
            )
            _stages(upper, lower, run.stages, place, colour)
        upper.set(ylabel="adversarial loss")
        upper.set_ylim(bottom=0)
        lower.set(
            xlabel="epoch",
            xlim=(0.5, max(len(run.epochs) for run in runs) + 0.5),
            ylim=(len(runs) - 0.5, -0.5),
            yticks=[],
            ylabel="stages",
        )
        lower.xaxis.get_major_locator().set_params(integer=True)
        plain(upper, "y")
        lower.spines[["top", "right", "left"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
        save(figure, "Adversarial loss on the training batches", path)


def _stages(upper: Any, lower: Any, stages: Sequence[StageEpochs], place: int, colour: str) -> None:
    """The row `place` of the stages' bars, and a line where a stage ends."""
    ends = list(accumulate(stage.epochs for stage in stages))
    for number, (stage, end) in enumerate(zip(stages, ends, strict=True)):
        start = end - stage.epochs
        lower.barh(
            place,
            stage.epochs,
            left=start + 0.5,
            height=0.8,
            color=colour,
            ec="white",
            lw=1.5,
            alpha=0.3 if number % 2 else 0.18,
        )
        lower.text(
            start + 0.5 + stage.epochs / 2,
            place,
            stage.name,
            ha="center",
            va="center",
            fontsize="small",
            color="#333333",
            clip_on=True,
        )
        if number:
            upper.axvline(start + 0.5, color=colour, lw=1, ls="--", alpha=0.7)
