"""Files that are either whole or absent, the hashes that name results, and locks that say who holds them."""

import hashlib
import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

PATIENCE = 1.0  # seconds that a process waits for a lock before it says so, and between two looks at who holds it

logger = logging.getLogger("robcomp")


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def digest(value: Any, length: int = 12) -> str:
    """The first `length` hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def kind_of(cls: type) -> str:
    """The `kind` that a class gives itself; TypeError where it has none of its own but, perhaps, its parent's."""
    if "kind" not in vars(cls):
        raise TypeError(f"{cls.__name__} names results and has no kind of its own; give it one, or register it")
    return str(vars(cls)["kind"])


def left_out(value: Any) -> set[str]:
    """The fields of a dataclass marked `field(default=..., metadata={"added": True})` that have their default.

    Results and files from before the field was there mean the default, and so keep their names and their bytes.
    """
    return {f.name for f in fields(value) if f.metadata.get("added") and getattr(value, f.name) == f.default}


def describe(value: Any) -> Any:
    """`value` as JSON that changes when the results it leads to would.

    A dataclass becomes its class's `kind`, its `revision` (1 where it has none) and every field that is compared,
    recursively. The kind is a string that each class defines for itself, so a class may be renamed freely; a field that
    is renamed keeps its former name by `field(metadata={"described": "former_name"})`. A field that a class was given
    later is left out at its default (`left_out`). TypeError for a dataclass without a kind of its own: two classes of
    one kind would pass for each other in the cache.
    """
    if is_dataclass(value):
        cls = type(value)
        shown = {
            f.metadata.get("described", f.name): describe(getattr(value, f.name))
            for f in fields(value)
            if f.init and f.compare and f.name not in left_out(value)
        }
        return {"kind": kind_of(cls), "revision": getattr(value, "revision", 1), **shown}
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    return value


def bytes_digest(content: bytes) -> str:
    """The SHA-256 of some bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def locked(path: Path, doing: str) -> Iterator[Callable[[str], None]]:
    """Hold the lock file `path`. Who has to wait for it logs a warning that says for whom: process, host, what, since.

    `doing` is what the holder is said to do: "training stage dense of outputs/..."; what it does later it says by the
    function that it gets. It stands, with the rest, in a file beside the lock while the lock is held. The lock of a
    process that died is free at once, whatever it left there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, beside, told = FileLock(path), path.with_name(f"{path.name}.owner"), ""
    while not lock.is_locked:
        try:
            lock.acquire(timeout=PATIENCE, poll_interval=0.05)
        except Timeout:
            if (holder := _Holder.read(beside)) != told:
                logger.warning("robcomp: waiting for %s", holder)
                told = holder

    def say(doing: str) -> None:
        with suppress(OSError):  # a full disk: who waits is told less
            write_json(beside, asdict(_Holder(os.getpid(), socket.gethostname(), doing, time.time())))

    try:
        say(doing)
        yield say
    finally:
        with suppress(OSError):  # while the lock is still held: later it would be the next holder's
            beside.unlink(missing_ok=True)
        lock.release()


def held(path: Path) -> bool:
    """Whether a process holds the lock file `path`, this one included."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


@dataclass(frozen=True)
class _Holder:
    """Who holds a lock; `since` in seconds since 1970."""

    pid: int
    host: str
    doing: str
    since: float

    @staticmethod
    def read(path: Path) -> str:
        """The holder that the file at `path` names, in words; of one that is gone or not written yet, its lock."""
        try:
            holder = _Holder(**json.loads(path.read_text(encoding="utf-8")))
            return holder.words() if holder.lives() else f"another process, which holds {_lock_of(path)}"
        except (OSError, ValueError, TypeError):
            return f"another process, which holds {_lock_of(path)}"

    def lives(self) -> bool:
        """Whether the process runs, as far as can be told: of those on other machines it is taken for granted."""
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's
            pass
        return True

    def words(self) -> str:
        began = datetime.fromtimestamp(self.since)
        today = began.date() == datetime.now().date()
        return (
            f"process {self.pid} on {self.host}, which has been {self.doing} since "
            f"{began:{'%H:%M' if today else '%Y-%m-%d %H:%M'}}"
        )


def _lock_of(beside: Path) -> Path:
    return beside.with_name(beside.name.removesuffix(".owner"))
