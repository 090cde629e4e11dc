"""Processes that train runs side by side for one command, and tell it what they print and how far they are.

Each is a fresh interpreter (nothing is shared, a GPU works in each) with its part of the CPU threads. They end with the
process that started them, however that ends.
"""

import io
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from robcomp.report.terminal import UNLIMITED, Gauge
from robcomp.runs import train
from robcomp.settings.compose import compose_config
from robcomp.sweeps.events import Drawn, Ended, Event, Said, failed

PATIENCE = 10.0  # seconds that a process gets to end by itself
LOOK = 0.5  # seconds between two looks at what may be free meanwhile


@dataclass(frozen=True)
class _Task:
    place: int
    overrides: list[str]
    discarded: set[Path]


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    number: int  # the lowest that was free when it was started
    place: int | None = None  # of the run that it trains


@dataclass
class Workers:
    """Up to `count` processes of this machine, which are started when there is work for them; their end ends them all.

    one_gpu_each: where there are several GPUs, each process sees one of them only.
    """

    count: int
    one_gpu_each: bool = True
    farewell: str = ""  # none of them goes on
    _workers: list[_Worker] = field(default_factory=list)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            with suppress(OSError):
                worker.pipe.close()
            if worker.place is not None:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(PATIENCE)
            worker.process.kill()
            worker.process.join()

    @property
    def free(self) -> bool:
        """Whether one of them has nothing to do."""
        return sum(worker.place is not None for worker in self._workers) < self.count

    def start(self, place: int, overrides: Sequence[str], discarded: set[Path]) -> None:
        """Train the run `place` in a process that has nothing to do."""
        self._workers = [each for each in self._workers if each.place is not None or each.process.is_alive()]
        idle = next((worker for worker in self._workers if worker.place is None), None)
        if idle is None:
            taken = {worker.number for worker in self._workers}
            idle = self._new(next(number for number in range(self.count) if number not in taken))
            self._workers.append(idle)
        idle.place = place
        with suppress(OSError):  # it has just died, which its pipe will tell
            idle.pipe.send(_Task(place, list(overrides), discarded))

    def events(self, seconds: float = LOOK) -> Iterator[Event]:
        """What has been told, after at most so many seconds. A process that died has ended its run with a failure."""
        busy = {worker.pipe: worker for worker in self._workers if worker.place is not None}
        for pipe in connection.wait(list(busy), seconds):
            worker = busy[pipe]  # type: ignore[index]
            try:
                event = worker.pipe.recv()
            except (EOFError, OSError):
                worker.process.join()
                self._workers.remove(worker)
                event = Ended(worker.place or 0, f"its process died ({_how(worker.process.exitcode)})")
            if isinstance(event, Ended):
                worker.place = None
            yield event

    def _new(self, number: int) -> _Worker:
        context, (mine, its) = get_context("spawn"), get_context("spawn").Pipe()
        process = context.Process(target=_work, args=(its,), daemon=True)
        with _environment(self.count, number if self.one_gpu_each else None), _without_interrupts():
            process.start()
        its.close()
        return _Worker(process, mine, number)


@contextmanager
def _environment(count: int, number: int | None) -> Iterator[None]:
    """What a process that is started inside finds: its part of the threads, and of several GPUs that of its number."""
    wanted = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count))}
    if number is not None and (gpus := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        wanted["CUDA_VISIBLE_DEVICES"] = visible[number % gpus]
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started inside is not interrupted from the keyboard: this one is, and ends it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}{', perhaps for want of memory: fewer jobs need less' if name == 'SIGKILL' else ''}"
    return f"exit code {code}"


# In the processes


class Relay(Console):
    """A console whose lines, and whose bars where some are drawn, go to the process that shows them."""

    def __init__(self, tell: "_Teller") -> None:
        super().__init__(file=_Lines(tell), width=UNLIMITED, force_terminal=False)
        self._tell = tell

    def board(self, gauges: Sequence[Gauge]) -> None:
        """Show bars."""
        self._tell(Drawn(self._tell.place, list(gauges)))

    def progress(self, text: str) -> None:
        """Print a line of what the bars show too."""
        self._tell(Said(self._tell.place, text, progress=True))


class _Teller:
    """Sends events of the run `place`; threads take turns."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._turn, self.place = pipe, threading.Lock(), 0

    def __call__(self, event: Event) -> None:
        with self._turn:
            self._pipe.send(event)


class _Lines(io.StringIO):
    """Tells each line that is written once it is whole."""

    def __init__(self, tell: _Teller) -> None:
        self._tell, self._begun = tell, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._tell(Said(self._tell.place, line))
        return len(text)


class _Warnings(logging.Handler):
    def __init__(self, tell: _Teller) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(Said(self._tell.place, record.getMessage()))


def _work(pipe: Connection) -> None:
    """Train what comes through the pipe, until it is closed, or the process at its other end is there no more."""
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tell = _Teller(pipe)
    console = Relay(tell)
    logger = logging.getLogger("robcomp")
    logger.addHandler(_Warnings(tell))
    logger.propagate = False
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            task: _Task = pipe.recv()
            tell.place = task.place
            tell(_ended(task, console))


def _ended(task: _Task, console: Console) -> Ended:
    try:
        train.train(compose_config(task.overrides), task.overrides, console, task.discarded)
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # nobody is there to be told
            raise
        return failed(task.place, error)
    except Exception as error:
        return failed(task.place, error)
    return Ended(task.place)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # by which the run ends and releases its locks
    time.sleep(PATIENCE)
    os._exit(1)
