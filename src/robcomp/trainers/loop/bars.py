"""How far the training of a run is: bars on a terminal, and everywhere a line for each epoch."""

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from robcomp.report.formatting import duration, percent
from robcomp.report.terminal import Gauge, Gauges, Part, about, line, say, watched
from robcomp.trainers.loop.forecast import Forecast
from robcomp.trainers.loop.stage_store import StageResult
from robcomp.trainers.meters import Meters
from robcomp.trainers.stage import Stage
from robcomp.trainers.state import TrainState

REFRESH_SECONDS = 0.5  # each look at the epoch's sums waits for the device once
WHOLE = "all stages"


class TrainingProgress:
    """A bar over the steps of the present stage and one over all `stages`, with the time left; a line an epoch.

    The bars are for terminals, where figures give way to counts and time left. Without `stages` there is one stage.
    """

    def __init__(self, console: Console, stages: Sequence[Stage] = ()) -> None:
        self._console = console
        self._visible = watched(console)
        self._forecast = Forecast(stages)
        self._gauges: Gauges | None = None
        self._figures: list[Part] = []

    def cached(self, stage: Stage, result: StageResult) -> None:
        """The stage is not trained: its result was there."""
        epochs = len(result.records)
        self._forecast.known(stage, result.seconds, epochs)
        trained = f" ({_epochs(epochs)}, trained in {duration(result.seconds)})" if epochs else ""
        say(self._console, f"{stage.name}: from the cache{trained}")

    def begin(self, stage: Stage, state: TrainState, records: Sequence[dict[str, Any]] = ()) -> None:
        """The stage goes on where `state` stands, after the epochs of `records`."""
        if not state.end:
            return
        self._forecast.begin(stage)
        self._stage, self._state, self._started = stage, state, time.monotonic()
        self._seen, self._step = self._started, state.step
        self._seconds = records[-1]["seconds"] if records else 0.0
        self._figures, self._over = [], False
        if records:
            self._forecast.known(stage, self._seconds, len(records))
        if state.step:
            epoch = min(state.epoch + 1, self._epochs)
            say(self._console, f"resumed at epoch {epoch} of {self._epochs} of stage {stage.name}")
        self._gauges = Gauges(self._console, self._draw)
        self._gauges.start()

    def step(self, state: TrainState, meters: Meters) -> None:
        """After a step, before its epoch's sums are reset."""
        now = time.monotonic()
        last = state.step == state.end
        if not self._forecast.measuring:
            self._forecast.measure(self._done)
        if not self._visible or (now - self._seen < REFRESH_SECONDS and not last):
            return
        means = meters.means()
        self._figures = [(3, f"loss {means['loss']:.3f}"), (4, _accuracies("", means["clean"], means["robust"]))]
        speed = (state.step - self._step) * state.batch_size / max(now - self._seen, 1e-9)
        self._figures.append((5, f"{speed:,.0f} images/s"))
        self._forecast.measure(self._done)
        self._seen, self._step = now, state.step

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is over: its line."""
        self._forecast.measure(record["epoch"])
        line(
            self._console,
            [
                (0, f"{record['stage']}  epoch {record['epoch']}/{record['epochs']}"),
                (1, f"loss {record['loss']:.3f}"),
                (5, _accuracies("train ", record["clean"], record["robust"])),
                (2, _accuracies("val ", record["val_clean"], record["val_robust"])),
                (4, f"{record['seconds'] - self._seconds:.1f} s"),
                (3, self._left()),
            ],
        )
        self._seconds = record["seconds"]

    def end(self) -> None:
        """Leave the bar of the stage as it stands: full after the last step, short after an interruption."""
        self._over = True
        if self._gauges is not None:
            self._gauges.stop()
            self._gauges = None

    @property
    def _done(self) -> float:
        return self._state.step / self._state.steps_per_epoch

    @property
    def _epochs(self) -> int:
        return self._state.end // self._state.steps_per_epoch

    def _left(self) -> str:
        """The time left of all stages, in words; nothing at the end, or where it is not known."""
        left = self._forecast.left_of_all(self._epochs)
        of = f" of {WHOLE}" if len(self._forecast.stages) > 1 else ""
        return f"about {about(left)} left{of}" if left and left >= 1 else ""

    def _draw(self) -> list[Gauge]:
        state, end = self._state, self._epochs
        epoch = max(-(-state.step // state.steps_per_epoch), 1)  # that of the last step
        step = state.step - (epoch - 1) * state.steps_per_epoch
        left = self._forecast.left(end)
        told = f"{about(left)} left" if left is not None else ""
        figures = self._figures
        if self._over:
            told, figures = duration(time.monotonic() - self._started), []
        counts: list[Part] = [(0, f"epoch {epoch}/{end}"), (1, f"step {step:,}/{state.steps_per_epoch:,}"), (0, told)]
        stages = self._forecast.stages
        width = max(len(WHOLE), len(self._stage.name))
        gauges = [Gauge(self._stage.name, state.step / state.end, [*counts, *figures], width)]
        if len(stages) > 1 and not self._over:
            number = [stage.name for stage in stages].index(self._stage.name) + 1
            left = self._forecast.left_of_all(end)
            whole: list[Part] = [(0, f"stage {number}/{len(stages)}")]
            whole += [(0, f"about {about(left)} left")] if left is not None else []
            gauges.append(Gauge(WHOLE, self._forecast.share(end), whole, width))
        return gauges


def _accuracies(of: str, clean: float | None, robust: float | None) -> str:
    """'val clean 73.3 %, robust 50.1 %', without what was not measured."""
    known = [f"{name} {percent(value)}" for name, value in (("clean", clean), ("robust", robust)) if value is not None]
    return of + ", ".join(known) if known else ""


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"
