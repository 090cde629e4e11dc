"""Files that are either whole or absent, and the hashes that name results."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any


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
