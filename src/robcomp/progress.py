"""What a person watching the terminal sees; nothing at all when there is no terminal."""

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from robcomp.trainers.loop.stage_loop import Meters
    from robcomp.trainers.state import TrainState

REFRESH_SECONDS = 0.5  # each refresh waits for the device once


class Progress:
    """A bar over the steps of a stage with the epoch's loss, batch accuracies, images/s and the time left."""

    def __init__(self, console: Console) -> None:
        self._visible = console.is_terminal
        self._console = console
        self._bar: Bar | None = None

    def begin(self, stage: str, state: "TrainState") -> None:
        """Show the bar of a stage that stands where `state` does."""
        if not self._visible or not state.end:
            return
        self._bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._task = self._bar.add_task(stage, total=state.end, completed=state.step, figures="")
        self._seen, self._step = time.monotonic(), state.step
        self._bar.start()

    def step(self, state: "TrainState", meters: "Meters") -> None:
        """After a step, before its epoch's sums are reset."""
        now = time.monotonic()
        last = state.step == state.end
        if self._bar is None or (now - self._seen < REFRESH_SECONDS and not last):
            return
        means = meters.means()
        parts = [
            f"epoch {-(-state.step // state.steps_per_epoch)}/{state.end // state.steps_per_epoch}",
            f"loss {means['loss']:.3f}",
        ]
        parts += [f"{name} {100 * means[name]:.1f} %" for name in ("clean", "robust") if means[name] is not None]
        parts.append(f"{(state.step - self._step) * state.batch_size / (now - self._seen):,.0f} img/s")
        self._bar.update(self._task, completed=state.step, total=state.end, figures="  ".join(parts))
        self._seen, self._step = now, state.step

    def end(self) -> None:
        """Leave the bar as it stands: full after the last step, short after an interruption."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class EvaluationProgress:
    """A bar over the images of each attack in turn; where the suite is known, one over it all, with the time left."""

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(24),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._costs: dict[str, int] = {}
        self._work: dict[str, tuple[float, float]] = {}  # of each attack: done and in all, in passes

    def __enter__(self) -> "EvaluationProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def plan(self, costs: dict[str, int], images: int) -> None:
        """The attacks to come with their passes an image; `images` is how many each meets at most."""
        self._costs = costs
        self._work = {name: (0.0, cost * images) for name, cost in costs.items()}
        if len(costs) > 1:
            self._tasks[""] = self._bar.add_task("all attacks", total=self._passes(1), figures="")

    def advance(self, name: str, done: float, total: int) -> None:
        """`done` of `total` images have been through the attack `name`."""
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(f"attack {name}", total=total, figures="")
        self._bar.update(self._tasks[name], completed=done, total=total, figures=f"{done:,.0f}/{total:,} images")
        if name in self._work and "" in self._tasks:
            self._work[name] = (self._costs[name] * done, self._costs[name] * total)
            self._bar.update(self._tasks[""], completed=self._passes(0), total=self._passes(1))

    def _passes(self, which: int) -> float:
        return sum(work[which] for work in self._work.values())
