"""robcomp: image classifiers that are adversarially robust and small, trained, packed, attacked and reported.

    import robcomp as rc

docs/library.md shows `rc.load`, `rc.attacks`, `rc.evaluate`, `rc.train`, `rc.read_report` and `rc.projections`. Each is
imported when it is first used, so `import robcomp` alone takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robcomp import attacks, projections
    from robcomp.errors import UserError
    from robcomp.library.evaluation import Evaluation, evaluate
    from robcomp.library.networks import load
    from robcomp.library.training import TrainedRun, read_report, train

__version__ = "0.1.0"

__all__ = [
    "Evaluation",
    "TrainedRun",
    "UserError",
    "__version__",
    "attacks",
    "evaluate",
    "load",
    "projections",
    "read_report",
    "train",
]

_HOMES = {
    "Evaluation": "library.evaluation",
    "TrainedRun": "library.training",
    "UserError": "errors",
    "evaluate": "library.evaluation",
    "load": "library.networks",
    "read_report": "library.training",
    "train": "library.training",
}


def __getattr__(name: str) -> Any:
    if name in ("attacks", "projections"):
        return import_module(f"robcomp.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'robcomp' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(f"robcomp.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
