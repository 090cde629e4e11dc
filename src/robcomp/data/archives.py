"""One sentence for everything that can go wrong between a published archive and its parsed images."""

import errno
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from robcomp.errors import UserError

_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Archive:
    """A published file: where it belongs, where to fetch it, its MD5 in hex; what it unpacks to, if it does."""

    path: Path
    url: str
    md5: str
    unpacked: Path | None = None

    @property
    def missing(self) -> bool:
        return not self.path.exists() and (self.unpacked is None or not self.unpacked.exists())

    @property
    def damaged(self) -> bool:
        if not self.path.is_file():
            return False
        with self.path.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
        return found.hexdigest() != self.md5


@contextmanager
def reading(name: str, folder: Path | None, archives: Sequence[Archive]) -> Iterator[None]:
    """Run the download and parsing of data set `name`, turning any failure into a UserError that says what to do.

    `folder` holds the unpacked files; None where the archives are read as they are. A broken download or archive shows
    itself as almost any exception (URLError, EOFError, UnpicklingError, a failing view), so the state of `archives` on
    disk decides what is said.
    """
    try:
        yield
    except Exception as error:
        raise UserError(_sentence(name, folder, archives, error)) from error


def _sentence(name: str, folder: Path | None, archives: Sequence[Archive], error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[-1].strip().rstrip(".:")
    if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
        return (
            f"dataset '{name}' cannot be stored in {archives[0].path.parent}: {error.strerror}; "
            "free space or set data_dir (or ROBCOMP_DATA_DIR) to a folder you may write."
        )
    if damaged := [archive for archive in archives if archive.damaged]:
        return (
            f"{_join(archive.path for archive in damaged)} is damaged (its MD5 is not the published one) and could "
            f"not be downloaded again ({reason}); replace it with {_join(archive.url for archive in damaged)}."
        )
    if missing := [archive for archive in archives if archive.missing]:
        return (
            f"dataset '{name}' is not here and could not be downloaded ({reason}); "
            f"put {_join(archive.url for archive in missing)} into {missing[0].path.parent}, "
            f"or set data_dir (or ROBCOMP_DATA_DIR) to a folder that holds {name}.safetensors."
        )
    if folder is None:
        return (
            f"{_join(archive.path for archive in archives)} cannot be read, though the MD5 is the published one "
            f"({reason}); replace it with {_join(archive.url for archive in archives)} and run again."
        )
    return (
        f"the files of dataset '{name}' under {folder} are damaged ({reason}); delete that folder and run again "
        f"(without a network, first put {_join(archive.url for archive in archives)} into {archives[0].path.parent})."
    )


def _join(items: Iterable[object]) -> str:
    return ", ".join(str(item) for item in items)
