"""What the processes that train the runs of a sweep tell of them."""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from robcomp.report.terminal import Gauge


@dataclass(frozen=True)
class Said:
    """A line that the run `place` printed; `progress`: it says what its bars show too."""

    place: int
    text: str
    progress: bool = False


@dataclass(frozen=True)
class Drawn:
    """The bars of the run `place` as they are now."""

    place: int
    gauges: Sequence[Gauge]


@dataclass(frozen=True)
class Ended:
    """The run `place` is finished, or it failed: for which reason, in a line, with its traceback."""

    place: int
    failure: str = ""
    trace: str = ""


Event = Said | Drawn | Ended


def failed(place: int, error: Exception) -> Ended:
    """That the run failed, and why."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Ended(place, reason, "".join(traceback.format_exception(error)))


class Processes(Protocol):
    """Where runs are trained, a context; what its end leaves running, `farewell` says before."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def free(self) -> bool:
        """Whether one more run may be started."""

    @property
    def farewell(self) -> str:
        """What goes on after the context has ended, and how to stop it; nothing where nothing does."""

    def start(self, place: int, overrides: Sequence[str], discarded: set[Path]) -> None:
        """Start the run `place`. discarded: the stages that fresh=true has discarded already."""

    def events(self) -> Iterator[Event]:
        """What has been told since the last call, after a while at most."""
