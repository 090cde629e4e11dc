"""What several results say of a run: how its report names it, and a size."""

from dataclasses import dataclass

from robcomp.report.records import meaning


@dataclass(frozen=True, kw_only=True)
class NamedRun:
    """A run as its report names it."""

    label: str = meaning("what the run is called in tables and figures")
    folder: str = meaning("its directory")
    id: str = meaning("hash of its configuration")
    dataset: str = meaning("name of its data set")
    model: str = meaning("name of its model")
    method: str = meaning("name of its method")


@dataclass(frozen=True, kw_only=True)
class SizeShare:
    """A size."""

    bytes: float = meaning("in bytes; of a counted size its bits / 8")
    fraction: float = meaning("of the dense network")
