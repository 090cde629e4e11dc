"""Names on the command line to classes: one table per kind, filled by a decorator where the class stands."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from robcomp.errors import unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """A table from a name to a class or function of one kind ('attack', 'model', 'method')."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: enter the class under `name`; a second entry of the same name is a programming error."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def name_of(self, entry: T) -> str:
        """The name under which `entry` was registered."""
        return next(name for name, value in self._entries.items() if value is entry)

    def items(self) -> list[tuple[str, T]]:
        return sorted(self._entries.items(), key=lambda item: item[0])
