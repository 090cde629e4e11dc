"""For every test: one thread, so that results and times do not depend on the machine's load."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny import run, write_data

from robcomp.evaluation import verdict

ROOT = Path(__file__).parents[1]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the made-up data set `tiny`."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def hasty_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict's strong attacks are short: networks this small need no more."""
    monkeypatch.setattr(verdict, "STEPS", 10)
    monkeypatch.setattr(verdict, "QUERIES", 50)


@pytest.fixture
def sandbox(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory whose default data folder holds `tiny`; nothing outside it is written or read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBCOMP_DATA_DIR", str(data_dir))
    return tmp_path


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the wheel unpacked, as a plain installation has it, away from the checkout."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed, and tests use no network")
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("robcomp-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no figure: matplotlib would take most of a tiny run's time."""
    draw_no_curves(monkeypatch)


def draw_no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robcomp.runs.train.training_curves", lambda log, figure: None)


@pytest.fixture(scope="session")
def lasting_run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny.run` for fixtures that outlive a test: without a figure, each run under a folder of its own."""

    def lasting(*overrides: str) -> Path:
        with pytest.MonkeyPatch.context() as monkeypatch:
            draw_no_curves(monkeypatch)
            return run([f"data_dir={data_dir}", f"out={tmp_path_factory.mktemp('runs')}", *overrides])

    return lasting


@pytest.fixture(scope="session")
def finished(lasting_run: Callable[..., Path]) -> tuple[Path, Path]:
    """The run directories of a natural and of an adversarially trained network."""
    settings = ["attack.verdict=0", "schedule.dense.epochs=10", "model.width=0.3"]
    return lasting_run(*settings, "method=nat"), lasting_run(*settings, "method=da")
