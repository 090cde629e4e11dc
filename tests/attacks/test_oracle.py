"""The attacks beside those of other libraries; only by `make test-oracle`, which installs them and takes an hour."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
RUNS = {"mnist": ("mnist-cpu/dbe2689f715d", 500), "cifar10": ("cifar10-cpu/8166c4e1fb26", 100)}

pytestmark = pytest.mark.skipif(
    "ROBCOMP_ORACLE" not in os.environ, reason="opt-in: make test-oracle installs other libraries and runs for an hour"
)


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_attacks", ROOT / "scripts" / "compare_attacks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_attacks_are_as_strong_as_the_libraries() -> None:
    """Each attack and suite at most 1 point weaker than each library, and on average over all at most 0.2 points."""
    compare, weaker = script(), {}
    for name, (run, images) in RUNS.items():
        bench = compare.Bench.of(ROOT / "results" / run, images)
        print(bench.header)
        for row in compare.table(bench, [*compare.ATTACKS, "standard"], list(compare.LIBRARIES), seeds=1):
            for library in compare.LIBRARIES[1:]:
                points = 100 * (row["robcomp"]["robust"] - row[library]["robust"])
                weaker[name, row["attack"], library] = points
    assert max(weaker.values()) <= 1.0001, weaker
    assert sum(weaker.values()) / len(weaker) <= 0.2, weaker
