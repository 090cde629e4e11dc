"""Dataclasses as JSON and back: what each key of a result file means is written once, at its field."""

import dataclasses
import datetime
import json
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, Union, get_args, get_origin, get_type_hints

import robcomp
from robcomp import storage
from robcomp.errors import UserError

T = TypeVar("T")


def meaning(said: str, *, default: Any = MISSING) -> Any:
    """A field of a record, and what it means. With a `default` its key is left out of the file where it has that value.

    `default=list` stands for an empty list.
    """
    if default is list:
        return dataclasses.field(default_factory=list, metadata={"said": said})
    return dataclasses.field(default=default, metadata={"said": said})


@dataclass(frozen=True, kw_only=True)
class Document:
    """The root of a result file; SCHEMA names its layout and version, AGAIN what to do about another one."""

    SCHEMA: ClassVar[str]
    AGAIN: ClassVar[str] = "make it again"

    schema: str = meaning("name and version of the layout; the number rises when a key changes its meaning or goes")
    robcomp: str = meaning("version of robcomp that wrote the file")

    @classmethod
    def make(cls, **content: Any) -> Self:
        """A new document of this version of robcomp."""
        return cls(schema=cls.SCHEMA, robcomp=robcomp.__version__, **content)

    @classmethod
    def parse(cls, content: Any, name: str) -> Self:
        """The document in JSON's `content`; UserError where it is of another version or not whole."""
        found = content.get("schema") if isinstance(content, dict) else None
        if found != cls.SCHEMA:
            raise UserError(
                f"{name} has schema {found!r}, and this robcomp reads '{cls.SCHEMA}': another version wrote it. "
                f"{cls.AGAIN[0].upper()}{cls.AGAIN[1:]}."
            )
        return from_json(cls, content, name, cls.AGAIN)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The checked document in the file `path`; UserError when it is absent, not JSON, or not whole."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"no {cls.SCHEMA.split('/')[0].removeprefix('robcomp-')} at {path}.") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not JSON ({error}); delete it and {cls.AGAIN}.") from None
        return cls.parse(content, str(path))

    @classmethod
    def present(cls, path: Path) -> bool:
        """Whether `path` holds a document of this version; one of another version may be made anew in its place."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except ValueError:  # damaged, as `read` will say
            return True
        found = content.get("schema") if isinstance(content, dict) else None
        name = cls.SCHEMA.split("/")[0]
        return found == cls.SCHEMA or not str(found).startswith(f"{name}/")

    def write(self, path: Path) -> None:
        """Write the document to `path`, whole or not at all."""
        storage.write_json(path, to_json(self))

    def to_json(self) -> str:
        """The document as the text of its file."""
        return json.dumps(to_json(self), indent=2, allow_nan=False, ensure_ascii=False)


def now() -> str:
    """The present moment, ISO 8601 with time zone."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def to_json(value: Any) -> Any:
    """A record as JSON's types; JSON knows no infinity, so an infinite number, which keys that may be absent can hold,
    becomes null."""
    if is_dataclass(value):
        held = ((f, getattr(value, f.name)) for f in fields(value))
        return {f.name: to_json(item) for f, item in held if required(f) or item != _default(f)}
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def from_json(kind: type[T], value: Any, name: str, again: str = "make it again") -> T:
    """The record of type `kind` that `to_json` made `value` of; keys that it does not know are passed over.

    UserError with every place where a key is missing or holds something of another type; `name` says of what, `again`
    what to do.
    """
    missing: list[str] = []
    wrong: list[str] = []
    record = _parse(kind, value, "", missing, wrong)
    if missing or wrong:
        said = [f"lacks {', '.join(missing)}"] if missing else []
        said += [f"has {', '.join(wrong)}"] if wrong else []
        raise UserError(f"{name} {' and '.join(said)}; docs/report.md lists all keys. {again[0].upper()}{again[1:]}.")
    return record


def keys(kind: type, place: str = "") -> Iterator[tuple[str, str]]:
    """(path, meaning) of every key of a record and of the records in it, in the order of the file.

    In a path `[]` stands for each item of a list, `*` for any name, and `?` ends that of a key that may be absent.
    """
    hints = _hints(kind)
    for f in fields(kind):
        path = f"{place}{f.name}"
        inner, mark = _record_in(hints[f.name])
        yield path + ("" if required(f) else "?"), f.metadata["said"]
        if inner is not None:
            yield from keys(inner, f"{path}{mark}.")


def required(f: "Field[Any]") -> bool:
    """Whether the key must be in the file."""
    return f.default is MISSING and f.default_factory is MISSING


def _default(f: "Field[Any]") -> Any:
    return f.default_factory() if f.default_factory is not MISSING else f.default


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _record_in(kind: Any) -> tuple[type | None, str]:
    """The record that a type holds, and how a path says that there may be several."""
    if is_dataclass(kind):
        return kind, ""  # type: ignore[return-value]  # a class, though is_dataclass takes instances for one too
    origin, inner = get_origin(kind), [part for part in get_args(kind) if part not in (type(None), ...)]
    if origin in (types.UnionType, Union) and len(inner) == 1:
        return _record_in(inner[0])
    if origin is list:
        found, mark = _record_in(inner[0])
        return found, f"[]{mark}"
    if origin is dict:
        found, mark = _record_in(inner[1])
        return found, f".*{mark}"
    return None, ""


def _parse(kind: Any, value: Any, place: str, missing: list[str], wrong: list[str]) -> Any:
    """`value` as `kind`; what is amiss goes to `missing` or `wrong`, by its place."""
    if kind is Any:
        return value
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        return (
            None
            if value is None
            else _parse(next(k for k in inner if k is not type(None)), value, place, missing, wrong)
        )

    def fault(expected: str) -> None:
        wrong.append(f"{place or 'its content'} = {json.dumps(value)[:60]}, where {expected} belongs")

    def parts(kinds: Callable[[int], Any], items: list[Any]) -> list[Any]:
        return [_parse(kinds(i), item, f"{place}[{i}]", missing, wrong) for i, item in enumerate(items)]

    if is_dataclass(kind):
        if not isinstance(value, dict):
            return fault("a mapping")
        return _record(kind, value, place, missing, wrong)
    if origin is list:
        return parts(lambda _: inner[0], value) if isinstance(value, list) else fault("a list")
    if origin is tuple:
        if not isinstance(value, list) or len(value) != len(inner):
            return fault(f"a list of {len(inner)}")
        return tuple(parts(lambda i: inner[i], value))
    if origin is dict:
        if not isinstance(value, dict):
            return fault("a mapping")
        return {name: _parse(inner[1], item, f"{place}.{name}", missing, wrong) for name, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return fault({str: "text", int: "a whole number", float: "a number", bool: "true or false"}[kind])
    return value


def _record(kind: Any, value: dict[str, Any], place: str, missing: list[str], wrong: list[str]) -> Any:
    held, whole = {}, True
    for f in fields(kind):
        here = f"{place}.{f.name}" if place else f.name
        if f.name in value:
            before = len(missing) + len(wrong)
            hint = _hints(kind)[f.name]
            endless = value[f.name] is None and not required(f) and float in get_args(hint)
            held[f.name] = math.inf if endless else _parse(hint, value[f.name], here, missing, wrong)
            whole &= before == len(missing) + len(wrong)
        elif required(f):
            missing.append(here)
            whole = False
    return kind(**held) if whole else None
