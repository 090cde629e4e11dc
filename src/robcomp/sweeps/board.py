"""How far runs side by side are: their bars on a terminal, and their lines elsewhere."""

import time
from collections.abc import Sequence

from rich.console import Console

from robcomp.report.terminal import Gauge, Gauges, Part, about, live, say
from robcomp.sweeps.events import Said
from robcomp.sweeps.pending import Pending


class Board:
    """The bars of runs that are trained side by side, and one over all runs; without a terminal their lines.

    works: what each run takes, in passes; `draw` and `over` say what becomes of it.
    """

    def __init__(self, console: Console, works: Sequence[float], pending: Pending) -> None:
        self._console, self._works, self._pending = console, list(works), pending
        self._began, self._whole, self._ended = time.monotonic(), sum(works), 0.0
        self._drawn: dict[int, Sequence[Gauge]] = {}
        self._shares: dict[int, float] = {}  # of each run's training, which only grow
        self._found: dict[int, float] = {}  # the first of them: what was done before
        self._gauges = Gauges(console, self._draw, transient=True)

    def __enter__(self) -> "Board":
        self._gauges.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._gauges.stop()

    def line(self, said: Said) -> None:
        """What a run printed, but for what its bar shows."""
        if not (said.progress and live(self._console)):
            say(self._console, f"[{said.place + 1}] {said.text}")

    def draw(self, place: int, gauges: Sequence[Gauge]) -> None:
        """The bars of a run as they are now; the last one is over all that it shows."""
        self._drawn[place] = gauges
        if gauges:
            self._found.setdefault(place, gauges[-1].share)
            self._shares[place] = max(self._shares.get(place, 0.0), gauges[-1].share)

    def over(self, place: int, failed: bool = False) -> None:
        """The run has ended; one that failed counts no longer."""
        self._drawn.pop(place, None)
        share = self._shares.pop(place, 0.0)
        if failed:
            self._whole -= self._works[place] * (1 - share)
        self._ended += self._works[place] * (share if failed else 1)

    def left(self) -> float | None:
        """Seconds left of all runs; None as long as nothing is done."""
        done = self._done()
        here = done - sum(self._works[place] * share for place, share in list(self._found.items()))
        return (time.monotonic() - self._began) * (self._whole - done) / here if here > 0 else None

    def _done(self) -> float:
        """The work that is done, of the runs under way by their bars."""
        return self._ended + sum(self._works[place] * share for place, share in list(self._shares.items()))

    def _draw(self) -> list[Gauge]:
        count, pending, left = len(self._works), self._pending, self.left()
        ended = count - len(pending.waiting) - len(pending.running)
        width = max(len(f"run {count}"), len("all"))
        under_way = [
            Gauge(f"run {place + 1}", gauges[-1].share, [(0, gauges[0].title), *gauges[0].parts], width)
            for place, gauges in sorted(self._drawn.items())
            if gauges
        ]
        parts: list[Part] = [(0, f"{ended} of {count} runs"), (1, f"about {about(left)} left" if left else "")]
        return [*under_way, Gauge("all", self._done() / self._whole if self._whole else 1.0, parts, width)]
