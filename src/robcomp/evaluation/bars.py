"""How far an evaluation is: a bar on a terminal, and everywhere a line for each attack that is done."""

import time
from collections.abc import Collection, Mapping

from rich.console import Console

from robcomp.evaluation.evaluator import Evaluator, Outcome
from robcomp.report.formatting import duration, percent
from robcomp.report.terminal import Gauge, Gauges, Part, about, line, say


class EvaluationProgress:
    """One bar over a series of attacks, with the time left; `plan` begins the next series."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._series, self._lines = _Series("", {}, 0, {}), True
        self._gauges = Gauges(console, lambda: self._series.gauges(), transient=True)

    def __enter__(self) -> "EvaluationProgress":
        self._gauges.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._gauges.stop()

    def plan(
        self,
        title: str,
        costs: Mapping[str, float],
        images: int,
        before: Mapping[str, Collection[str]] | None = None,
        lines: bool = True,
    ) -> None:
        """The attacks to come by name, with their passes an image; `images` is how many each meets at most.

        `before`: under an attack's name those whose survivors it meets. `lines`: whether each of them gets a line when
        it is done; without, `close` prints one for the series.
        """
        self._series, self._lines = _Series(title, costs, images, before or {}), lines

    def watch(self, evaluator: Evaluator) -> None:
        """Let the evaluator tell how far it is."""
        evaluator.advance, evaluator.goes_on, evaluator.finished = self.advance, self.goes_on, self.finished

    def goes_on(self, name: str, done: int, total: int) -> None:
        """An attack that was stopped goes on after `done` images."""
        self._series.found(name, done, total)
        if done < total and self._lines:
            say(self._console, f"resumed {name} at image {done + 1:,} of {total:,}")

    def advance(self, name: str, done: float, total: int) -> None:
        """`done` of `total` images have been through the attack `name`."""
        self._series.reach(name, done, total)

    def finished(self, name: str, outcome: Outcome | None = None) -> None:
        """The attack is done, or there was nothing to attack; its line says what it left, where that is given."""
        series = self._series
        total = outcome.attacked if outcome else series.images(name)
        series.reach(name, total, total)
        if outcome is not None:
            series.survived(name, int(outcome.correct.sum()))
        if not self._lines:
            return
        parts: list[Part] = [(0, f"{series.place(name)} {name}".strip())]
        if outcome is not None:
            parts += [
                (1, f"accuracy {percent(float(outcome.correct.mean()))}"),
                (3, f"{outcome.attacked:,} image{'' if outcome.attacked == 1 else 's'} attacked"),
                (2, f"{outcome.seconds:.1f} s"),
            ]
        left = series.left()
        line(self._console, [*parts, (4, f"about {about(left)} left" if left and left >= 1 else "")])

    def close(self) -> None:
        """The series is done."""
        if not self._lines:
            say(self._console, self._series.words())


class _Series:
    """Attacks with their passes an image, and how far they are.

    What was found before, by a process that was stopped, says nothing of the pace.
    """

    def __init__(
        self, title: str, costs: Mapping[str, float], images: int, before: Mapping[str, Collection[str]]
    ) -> None:
        self.title, self._costs, self._before = title, dict(costs), before
        self._work = {name: (0.0, float(images)) for name in costs}  # of each attack: images done and in all
        self._resumed: dict[str, float] = {}  # of these, before this process began
        self._begun: list[str] = []
        self._started = time.monotonic()

    def found(self, name: str, done: float, total: int) -> None:
        self._resumed[name] = done
        self.reach(name, done, total)

    def reach(self, name: str, done: float, total: int) -> None:
        self._work[name] = (done, float(total))
        if name not in self._begun:
            self._begun.append(name)

    def survived(self, attack: str, images: int) -> None:
        """The attack has left so many images; those to come on its survivors meet no more."""
        for name, before in self._before.items():
            if attack in before and name not in self._begun:
                self._work[name] = (0.0, min(self._work[name][1], float(images)))

    def images(self, name: str) -> int:
        return int(self._work.get(name, (0, 0))[1])

    def place(self, name: str) -> str:
        """'attacks 2/3', the place of an attack in its series; nothing where none was planned."""
        return f"{self.title} {self._begun.index(name) + 1}/{len(self._work)}" if self._costs else ""

    def left(self) -> float | None:
        """Seconds left of the series; None as long as nothing was measured."""
        done, whole = self._passes()
        here = done - sum(self._cost(name) * count for name, count in list(self._resumed.items()))
        return (whole - done) * (time.monotonic() - self._started) / here if here > 0 else None

    def words(self) -> str:
        """The series when it is done."""
        return f"{self.title}: {len(self._begun)} attacks in {duration(time.monotonic() - self._started)}"

    def gauges(self) -> list[Gauge]:
        """The bar, from the first attack on."""
        if not self._begun:
            return []
        name, left, (passed, whole) = self._begun[-1], self.left(), self._passes()
        done, total = self._work[name]
        parts: list[Part] = [
            (0, self.place(name).removeprefix(self.title).strip()),
            (1, name.removeprefix(f"{self.title}.") if self.title else ""),
            (2, f"{done:,.0f}/{total:,.0f} images"),
            (0, f"{about(left)} left" if left is not None else ""),
        ]
        return [Gauge(self.title or name, passed / whole if whole else 1.0, parts)]

    def _cost(self, name: str) -> float:
        return self._costs.get(name, 1.0)

    def _passes(self) -> tuple[float, float]:
        """Done, and in all; a list first, as a bar is drawn while another thread counts."""
        work = list(self._work.items())
        return sum(self._cost(name) * done for name, (done, _) in work), sum(
            self._cost(name) * total for name, (_, total) in work
        )
