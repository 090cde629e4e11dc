"""Names on the command line to classes: one table per kind, filled by a decorator where the class stands.

Attacks, models, methods and data sources all register so: a package calls `import_modules` in its __init__, and a new
entry is one new file in that package.
"""

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Generic, TypeVar

from robcomp.errors import unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """A table from a name to a class or function of one kind ('attack', 'model', 'method')."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: enter the class under `name`, which also becomes its `kind` (`storage.describe`).

        ValueError where the name is taken, or the class registered already.
        """

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            if isinstance(entry, type):
                if "kind" in vars(entry):
                    raise ValueError(f"{entry.__name__} is registered as '{vars(entry)['kind']}' and as '{name}'")
                type.__setattr__(entry, "kind", name)
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def items(self) -> list[tuple[str, T]]:
        return sorted(self._entries.items(), key=lambda item: item[0])


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import every module of `package`, whose __path__ is `path`, so that all its entries register themselves."""
    for module in iter_modules(path):
        import_module(f"{package}.{module.name}")
