"""The bar of a stage: the epoch it names, full only when the stage is done, silence without a terminal."""

import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from robcomp.trainers.loop import bars
from robcomp.trainers.loop.bars import TrainingProgress
from robcomp.trainers.meters import Meters
from robcomp.trainers.objectives import Loss

EPOCHS, STEPS = 2, 3


def shown(steps: int, terminal: bool, monkeypatch: pytest.MonkeyPatch, longer: int = 0) -> str:
    """What `steps` steps of a stage of two epochs of three steps put on the screen; it doubles at the step `longer`."""
    monkeypatch.setattr(bars, "REFRESH_SECONDS", 0.0)
    stream = io.StringIO()
    bar = TrainingProgress(Console(file=stream, force_terminal=terminal, width=140))
    meters = Meters(torch.device("cpu"))
    state = SimpleNamespace(step=0, steps_per_epoch=STEPS, end=EPOCHS * STEPS, batch_size=4)
    bar.begin("dense", state)
    for step in range(1, steps + 1):
        meters.add(Loss(torch.tensor(1.5), torch.tensor(3), None), 4)
        state.step = step
        state.end += EPOCHS * STEPS if step == longer else 0
        bar.step(state, meters)
    bar.end()
    return stream.getvalue()


@pytest.mark.parametrize(("steps", "epoch"), [(1, 1), (3, 1), (4, 2), (6, 2)])
def test_the_epoch_is_that_of_the_last_step(steps: int, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    last = shown(steps, True, monkeypatch).rpartition("epoch ")[2]
    assert last.startswith(f"{epoch}/{EPOCHS}  loss 1.500  clean 75.0 %")


def test_an_interrupted_bar_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "6/6" not in shown(4, True, monkeypatch)
    assert "6/6" in shown(6, True, monkeypatch)


def test_the_bar_of_a_stage_that_goes_on_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(9, True, monkeypatch, longer=6)
    assert "9/12" in text
    assert "epoch 3/4" in text


def test_nothing_is_shown_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(6, False, monkeypatch) == ""
