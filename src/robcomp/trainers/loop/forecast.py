"""How long a run's stages still take: the passes through the network that are left, at the pace of those done."""

import time
from collections.abc import Callable, Sequence

from robcomp.trainers.stage import Stage


def passes(stage: Stage, epochs: float) -> float:
    """The passes that each training image takes through the network, forward and backward, in the first `epochs`."""
    return _spent(_each(stage), epochs)


def _each(stage: Stage) -> list[float]:
    """The passes of every epoch, and of one more."""
    return [stage.objective.passes(epoch, stage.schedule.epochs) for epoch in range(stage.schedule.epochs + 1)]


def _spent(each: Sequence[float], epochs: float) -> float:
    whole = min(int(epochs), len(each) - 1)
    return sum(each[:whole]) + (epochs - whole) * each[whole]


class Forecast:
    """The time left of the stages of a run, from what their steps took. All stages have the same images.

    The pace (seconds a pass) is that of the present stage once two of its steps are done, before that of the stage
    before it, or of the epochs that another process trained.
    """

    def __init__(self, stages: Sequence[Stage], clock: Callable[[], float] = time.monotonic) -> None:
        self.stages, self._clock = list(stages), clock
        self._each: dict[str, list[float]] = {}  # of each stage by its name, counted once: bars are drawn often
        self._place, self._epochs = 0, 0.0
        self._pace: float | None = None
        self._origin: tuple[float, float] | None = None

    def known(self, stage: Stage, seconds: float, epochs: int) -> None:
        """`epochs` of a stage took `seconds` when they were trained."""
        if work := self._passes(stage, epochs):
            self._pace = seconds / work

    def begin(self, stage: Stage) -> None:
        """`stage` is the one that trains now."""
        names = [other.name for other in self.stages]
        if stage.name not in names:
            self.stages, names = [stage], [stage.name]
        self._place, self._epochs, self._origin = names.index(stage.name), 0.0, None

    @property
    def measuring(self) -> bool:
        """Whether the clock runs: from the first `measure` of a stage on."""
        return self._origin is not None

    def measure(self, epochs: float) -> None:
        """The present stage has trained for so many epochs; first said after a step, as the first one takes longer."""
        self._epochs, now = epochs, (self._clock(), self._passes(self.stage, epochs))
        if self._origin is None:
            self._origin = now
        elif now[1] > self._origin[1]:
            self._pace = (now[0] - self._origin[0]) / (now[1] - self._origin[1])

    @property
    def stage(self) -> Stage:
        return self.stages[self._place]

    def left(self, end: float) -> float | None:
        """Seconds left of the present stage, which ends after `end` epochs; None as long as nothing was measured."""
        if self._pace is None:
            return None
        return self._pace * max(self._passes(self.stage, end) - self._passes(self.stage, self._epochs), 0.0)

    def left_of_all(self, end: float) -> float | None:
        """Seconds left of the present stage and of all that come after it."""
        left = self.left(end)
        return left if left is None or self._pace is None else left + self._pace * self._work(self._place + 1)

    def share(self, end: float) -> float:
        """How much of all stages is done, 0 to 1, in passes."""
        whole = self._work(0) - self._whole(self.stage) + self._passes(self.stage, end)
        before = self._work(0) - self._work(self._place)
        return (before + self._passes(self.stage, self._epochs)) / whole if whole else 1.0

    def _work(self, place: int) -> float:
        """The passes of all stages from that at `place` on."""
        return sum(self._whole(stage) for stage in self.stages[place:])

    def _whole(self, stage: Stage) -> float:
        return self._passes(stage, stage.schedule.epochs)

    def _passes(self, stage: Stage, epochs: float) -> float:
        if stage.name not in self._each:
            self._each[stage.name] = _each(stage)
        return _spent(self._each[stage.name], epochs)
