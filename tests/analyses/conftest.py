"""Two finished runs of a network each on `tiny`, made once by the real runner."""

from pathlib import Path

import pytest
from tiny import run

SETTINGS = ["attack.verdict=0", "schedule.dense.epochs=10", "model.width=0.3"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> tuple[Path, Path]:
    """The run directories of a natural and an adversarially trained network."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robcomp.figures.training.training_curves", lambda log, figure: None)
        first, second = (
            run([*SETTINGS, f"data_dir={data_dir}", f"out={out}", f"method={method}"]) for method in ("nat", "da")
        )
    return first, second
