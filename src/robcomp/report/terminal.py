"""What is printed while something runs: bars and lines that fit the terminal, and plain lines where there is none."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType
from rich.console import Group as Lines
from rich.live import Live
from rich.text import Text

from robcomp.report.formatting import duration

UNLIMITED = 10_000  # columns of what is no terminal, where nothing is folded
GAP = "  "
SHORTEST, LONGEST = 6, 30  # columns of a bar
REFRESHES = 4  # a second

Part = tuple[int, str]  # a piece of a line and its rank: those of the highest go first where it is narrow, 0 never


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """The console of a command: as wide as the terminal, without limit and without control characters elsewhere."""
    if (sys.stderr if stderr else sys.stdout).isatty():
        return Console(stderr=stderr, quiet=quiet)
    return Console(stderr=stderr, quiet=quiet, width=UNLIMITED, force_terminal=False)


def live(console: Console) -> bool:
    """Whether bars can be drawn on it."""
    return console.is_terminal and not console.is_dumb_terminal and not console.quiet


def watched(console: Console) -> bool:
    """Whether bars are drawn: on it, or by the process that its `board` sends them to."""
    return live(console) or hasattr(console, "board")


def waiting(console: Console, text: str) -> AbstractContextManager[object]:
    """Inside, something is done that prints nothing: on a terminal `text` says what."""
    return console.status(text) if live(console) else nullcontext()


def say(console: Console, text: str, style: str = "", fold: bool = False) -> None:
    """Print `text` as it is. Nothing is folded, so a path in it can be copied, also from a narrow terminal.

    `fold` breaks what is too long for a terminal between words: for sentences without a path.
    """
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=not fold)


def line(console: Console, parts: Sequence[Part]) -> None:
    """Print as many of the parts, in their order, as fit on a line; all of them where there is no terminal.

    A console whose bars another process shows, by its `board`, is told them by its `progress`.
    """
    text = fitted(parts, console.width if live(console) else UNLIMITED)
    if progress := getattr(console, "progress", None):
        progress(text)
    else:
        say(console, text)


def fitted(parts: Sequence[Part], width: int) -> str:
    """The parts in their order, without those of the highest ranks, in at most `width` columns."""
    kept = [part for part in parts if part[1]]
    while cell_len(text := GAP.join(said for _, said in kept)) > width:
        least = max(rank for rank, _ in kept)
        if least == 0:
            return set_cell_size(text, width - 1) + "…"
        del kept[max(place for place, (rank, _) in enumerate(kept) if rank == least)]
    return text


def about(seconds: float | None) -> str:
    """An estimate, no finer than it is: '40 s', '12 min', '2 h 05 min'; empty where it is not known."""
    if seconds is None:
        return ""
    return duration(60 * round(seconds / 60)).removesuffix(" 00 s") if seconds >= 90 else f"{round(seconds)} s"


@dataclass(frozen=True)
class Gauge:
    """A line with a bar: title, bar, parts. Never wider than the terminal; the bar gets what the parts leave it.

    `share`: how much is done, 0 to 1. `title_width`: columns of the title, so that bars below each other begin alike.
    """

    title: str
    share: float
    parts: Sequence[Part]
    title_width: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        width = options.max_width
        title = set_cell_size(self.title, min(max(self.title_width, cell_len(self.title)), width // 3))
        room = width - cell_len(title) - 2 * len(GAP)
        said = fitted(self.parts, max(room - SHORTEST, 1))
        bar = _bar(self.share, max(min(LONGEST, room - cell_len(said)), 1), options.ascii_only)
        yield Text.assemble((title, "bold"), GAP, bar, GAP, said, no_wrap=True, overflow="ellipsis")


class Gauges:
    """Lines at the foot of the terminal, drawn anew while something runs; nothing where there is no terminal.

    `draw` is asked for them some times a second, from a thread. With `transient` they vanish in the end. A console with
    a `board` has no foot: it is told them.
    """

    def __init__(self, console: Console, draw: Callable[[], Sequence[Gauge]], transient: bool = False) -> None:
        self._live: Live | _Told | None = None
        if board := getattr(console, "board", None):
            self._live = _Told(lambda: board(draw()))
        elif live(console):
            self._live = Live(
                console=console,
                get_renderable=lambda: Lines(*draw()),
                refresh_per_second=REFRESHES,
                transient=transient,
            )

    def start(self) -> None:
        if self._live is not None:
            self._live.start()

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()


class _Told:
    """Tells again and again, from a thread, between start and stop."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell, self._over = tell, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError):  # nobody is there any more: the run itself will notice
            while not self._over.wait(2 / REFRESHES):
                self._tell()


def _bar(share: float, width: int, ascii_only: bool) -> Text:
    halves = round(2 * width * min(max(share, 0.0), 1.0))
    full, half = divmod(halves, 2)
    done, tip, rest = ("#", "#", "-") if ascii_only else ("━", "╸", "─")
    style = "bar.finished" if halves == 2 * width else "bar.complete"
    return Text.assemble((done * full + tip * half, style), (rest * (width - full - half), "bar.back"))
