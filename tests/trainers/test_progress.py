"""How far training is: bars that fit, lines an epoch, what was resumed or cached, silence where it is quiet."""

import io
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny import dataset, stage_store, train_state, two_layers

from robcomp.attacks.pgd import PGD
from robcomp.trainers.loop import bars
from robcomp.trainers.loop.bars import TrainingProgress
from robcomp.trainers.loop.forecast import Forecast
from robcomp.trainers.loop.stage_loop import LoopSettings, run_stage
from robcomp.trainers.loop.stage_store import StageResult
from robcomp.trainers.meters import Meters
from robcomp.trainers.objectives import Adversarial, Loss, Natural
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

EPOCHS, STEPS = 2, 3
DENSE, SPARSE = (Stage(name, Natural(), Schedule(epochs=EPOCHS)) for name in ("dense", "sparse"))
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def screen(width: int | None, console_of: io.StringIO) -> Console:
    """A terminal of `width` columns, none for None."""
    if width is None:
        return Console(file=console_of, force_terminal=False, width=10_000)
    return Console(file=console_of, force_terminal=True, width=width, color_system=None)


def training(epochs: int = EPOCHS) -> TrainState:
    """A stage of three steps an epoch, at its beginning."""
    return train_state(two_layers(), data=dataset(12), batch=4, epochs=epochs)


def record(epoch: int, **changed: Any) -> dict[str, Any]:
    means = {"loss": 1.5, "clean": 0.75, "robust": 0.5, "val_clean": 0.625, "val_robust": 0.25}
    return {"stage": "dense", "epoch": epoch, "epochs": EPOCHS, "seconds": 10.0 * epoch, **means, **changed}


def drawn(progress: TrainingProgress, width: int | None) -> list[str]:
    """The lines of the bars as they would be drawn now."""
    stream = io.StringIO()
    screen(width, stream).print(*progress._draw())
    return [line for line in stream.getvalue().splitlines() if line.strip()]


def shown(steps: int, width: int | None, monkeypatch: pytest.MonkeyPatch, longer: int = 0) -> list[str]:
    """All lines that `steps` steps of the stage dense bring, ten seconds each: those printed, and those of the bars.

    At the step `longer` the stage becomes twice as long.
    """
    ticks = iter(range(0, 1000, 10))
    monkeypatch.setattr(bars, "Forecast", partial(Forecast, clock=lambda: next(ticks)))
    monkeypatch.setattr(bars, "REFRESH_SECONDS", 0.0)
    stream = io.StringIO()
    progress = TrainingProgress(screen(width, stream), [DENSE, SPARSE])
    meters, state = Meters(torch.device("cpu")), training()
    progress.begin(DENSE, state)
    lines = drawn(progress, width)
    for step in range(1, steps + 1):
        meters.add(Loss(torch.tensor(1.5), torch.tensor(3), torch.tensor(2)), 4)
        state.step = step
        state.end += EPOCHS * STEPS if step == longer else 0
        progress.step(state, meters)
        if step % STEPS == 0:
            progress.epoch(record(step // STEPS))
        lines += drawn(progress, width)
    progress.end()
    printed = CONTROL.sub("\n", stream.getvalue()).splitlines()
    return ([] if width is None else lines) + [line for line in printed if line.strip()]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("steps", [1, 4, 6])
def test_nothing_is_wider_than_the_terminal(width: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(steps, width, monkeypatch)
    assert max(map(len, lines)) <= width
    assert len(lines) > 2 * steps
    for line in filter(re.compile("[━─]").search, lines):
        assert sum(map(line.count, "━╸─")) >= 6
        assert re.search(rf"epoch [12]/{EPOCHS}|stage 1/2", line)


@pytest.mark.parametrize(("steps", "epoch", "step"), [(1, 1, 1), (3, 1, 3), (4, 2, 1), (6, 2, 3)])
def test_the_epoch_is_that_of_the_last_step(steps: int, epoch: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    last = [line for line in shown(steps, 80, monkeypatch) if re.search("[━─]", line)][-1]
    assert f"epoch {epoch}/{EPOCHS}  step {step}/{STEPS}" in last
    assert ("─" not in last) == (steps == EPOCHS * STEPS)  # full after the last step, short after an interruption


def test_figures_give_way_to_counts_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = "loss 1.500  clean 75.0 %, robust 50.0 %"
    for width, fits in ((60, False), (80, False), (160, True)):
        lines = [line for line in shown(5, width, monkeypatch) if "step 2/3" in line and "left" in line]
        assert lines
        assert any(figures in line for line in lines) == fits
    assert any("images/s" in line for line in lines)


def test_the_whole_run_has_a_bar_below(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in shown(5, 80, monkeypatch) if line.startswith("all stages")]
    assert re.fullmatch(r"all stages  ━+╸?─+  stage 1/2  about 3 min left", lines[3])


def test_the_bar_of_a_stage_that_goes_on_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("epoch 3/4  step 3/3" in line for line in shown(9, 80, monkeypatch, longer=6))


def test_without_a_terminal_an_epoch_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = shown(6, None, monkeypatch)
    figures = "loss 1.500  train clean 75.0 %, robust 50.0 %  val clean 62.5 %, robust 25.0 %  10.0 s"
    assert first == f"dense  epoch 1/2  {figures}  about 45 s left of all stages"
    assert second.startswith("dense  epoch 2/2  loss 1.500")


@pytest.mark.parametrize("width", [60, 80, 100, 160, None])
def test_the_line_of_an_epoch_keeps_what_matters(width: int | None) -> None:
    stream = io.StringIO()
    progress = TrainingProgress(screen(width, stream), [DENSE])
    state = training()
    progress.begin(DENSE, state)
    state.step = STEPS
    progress.epoch(record(1, val_clean=None, val_robust=None, robust=None))
    progress.epoch(record(1))
    progress.end()
    lines = [line for line in CONTROL.sub("\n", stream.getvalue()).splitlines() if "loss" in line]
    assert lines[0].startswith("dense  epoch 1/2  loss 1.500")
    assert "None" not in lines[0]
    assert ("val clean 62.5 %, robust 25.0 %" in lines[1]) == (width != 60 or len(lines[1]) > 48)
    assert width is None or max(map(len, lines)) <= width


class StoppedError(Exception):
    """The training is interrupted."""


def test_a_resumed_stage_says_where_and_repeats_no_line(tmp_path: Path) -> None:
    stage = Stage("dense", Adversarial(PGD(0.1, steps=1)), Schedule(epochs=3, lr=0.01))
    settings, told, logged = LoopSettings(PGD(0.1, steps=1)), [], []

    def run(stop_after: int) -> str:
        stream = io.StringIO()

        def on_epoch(found: dict[str, Any]) -> None:
            logged.append(found["epoch"])
            if found["epoch"] == stop_after + 1:
                raise StoppedError

        progress = TrainingProgress(screen(None, stream), [stage])
        run_stage(stage, training(3), settings, stage_store(tmp_path, stage), on_epoch, progress)
        return stream.getvalue()

    with pytest.raises(StoppedError):
        run(1)
    told = run(9).splitlines()
    assert told[0] == "resumed at epoch 2 of 3 of stage dense"
    assert [line.split("loss")[0].strip() for line in told[1:]] == ["dense  epoch 2/3", "dense  epoch 3/3"]
    assert logged == [1, 2, 1, 2, 3]  # the log has every epoch


def test_a_cached_stage_is_said_and_tells_the_pace() -> None:
    stream = io.StringIO()
    progress = TrainingProgress(screen(None, stream), [DENSE, SPARSE])
    progress.cached(DENSE, StageResult({}, {}, [record(1), record(2)], 120.0))
    state = training()
    progress.begin(SPARSE, state)
    state.step = STEPS
    progress.epoch(record(1) | {"stage": "sparse"})
    cached, epoch = stream.getvalue().splitlines()
    assert cached == "dense: from the cache (2 epochs, trained in 2 min 00 s)"
    assert epoch.endswith("about 60 s left of all stages")  # half of what as long a stage took


def test_nothing_is_shown_where_it_is_quiet() -> None:
    stream = io.StringIO()
    progress = TrainingProgress(Console(file=stream, force_terminal=True, quiet=True), [DENSE])
    state = training()
    progress.begin(DENSE, state)
    progress.epoch(record(1))
    progress.end()
    assert stream.getvalue() == ""
