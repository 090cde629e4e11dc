"""For every test: one thread, so that results and times do not depend on the machine's load."""

from pathlib import Path

import pytest
import torch
from tiny import write_data

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the made-up data set `tiny`."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def sandbox(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory whose default data folder holds `tiny`; nothing outside it is written or read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBCOMP_DATA_DIR", str(data_dir))
    return tmp_path


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no figure: matplotlib would take most of a tiny run's time."""
    monkeypatch.setattr("robcomp.figures.training.training_curves", lambda log, figure: None)
