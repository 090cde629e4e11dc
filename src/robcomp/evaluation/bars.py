"""The bars of an evaluation on the terminal; nothing at all when there is no terminal."""

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


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
