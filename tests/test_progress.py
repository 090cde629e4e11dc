"""The bar of a stage: the epoch it names, full only when the stage is done, silence without a terminal."""

import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from robcomp import progress
from robcomp.progress import Progress
from robcomp.trainers.loop import Meters

EPOCHS, STEPS = 2, 3


def shown(steps: int, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `steps` steps of a stage of two epochs of three steps put on the screen."""
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.0)
    stream = io.StringIO()
    bar, meters = Progress(Console(file=stream, force_terminal=terminal, width=140)), Meters(torch.device("cpu"))
    bar.begin("dense", EPOCHS, STEPS, 0)
    for step in range(1, steps + 1):
        meters.add(torch.tensor(1.5), torch.tensor(3), None, 4)
        t = SimpleNamespace(
            step=step, steps_per_epoch=STEPS, epochs=EPOCHS, total_steps=EPOCHS * STEPS, batch_size=4
        )  # fmt: skip
        bar.step(t, meters)
    bar.end()
    return stream.getvalue()


@pytest.mark.parametrize(("steps", "epoch"), [(1, 1), (3, 1), (4, 2), (6, 2)])
def test_the_epoch_is_that_of_the_last_step(steps: int, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    last = shown(steps, True, monkeypatch).rpartition("epoch ")[2]
    assert last.startswith(f"{epoch}/{EPOCHS}  loss 1.500  clean 75.0 %")


def test_an_interrupted_bar_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "6/6" not in shown(4, True, monkeypatch)
    assert "6/6" in shown(6, True, monkeypatch)


def test_nothing_is_shown_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(6, False, monkeypatch) == ""
