"""The bar of a stage in training on the terminal; nothing at all when there is no terminal."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from robcomp.trainers.meters import Meters
from robcomp.trainers.state import TrainState

REFRESH_SECONDS = 0.5  # each refresh waits for the device once


class TrainingProgress:
    """A bar over the steps of a stage with the epoch's loss, batch accuracies, images/s and the time left."""

    def __init__(self, console: Console) -> None:
        self._visible = console.is_terminal
        self._console = console
        self._bar: Bar | None = None

    def begin(self, stage: str, state: TrainState) -> None:
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

    def step(self, state: TrainState, meters: Meters) -> None:
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
