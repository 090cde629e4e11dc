"""The one training loop. A stage brings the objective and the compressor; this brings batches, steps and resumption."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robcomp.attacks.base import Attack
from robcomp.data import Split, to_float
from robcomp.errors import UserError
from robcomp.models.parameterisation import form_of, to_spec
from robcomp.seeding import generator
from robcomp.trainers import compressor
from robcomp.trainers.loop.bars import TrainingProgress
from robcomp.trainers.loop.finalise import STATISTICS_IMAGES, WeightAverage, finalise, finalised
from robcomp.trainers.loop.graphs import ObjectiveGradients
from robcomp.trainers.loop.stage_store import StageResult, StageStore
from robcomp.trainers.meters import Meters
from robcomp.trainers.objectives import Natural
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

VALIDATION_BATCH = 500
REVISION = 2  # raise when the loop's results change: part of every stage's key

Record = dict[str, Any]


@dataclass(frozen=True)
class LoopSettings:
    """How every stage is run: the attack that measures robustness on the held-out slice, and which weights are kept."""

    validation_attack: Attack
    selection: str = "last"  # last: the end of the stage; best: the best epoch on the held-out slice; best_on_test
    weight_average: float = 0.0  # tau of `WeightAverage`; 0: the weights themselves


def run_stage(
    stage: Stage,
    state: TrainState,
    settings: LoopSettings,
    store: StageStore,
    on_epoch: Callable[[Record], None],
    progress: TrainingProgress,
) -> StageResult:
    """Train `state.model` through `stage`, from its checkpoint if it has one; the model ends inside the constraint.

    Saves a checkpoint at each epoch's end and whenever the store finds one due, hands a record of each finished epoch
    to `on_epoch` (those before the checkpoint too; `progress` is told of the new ones), and raises UserError when the
    loss stops being finite.
    """
    loop = StageLoop(stage, state, settings)
    if (saved := store.checkpoint(state.env.device)) is not None:
        try:
            loop.resume(saved)
        except ValueError as error:
            raise UserError(f"{store.folder}: {error}; fresh=true starts the stage over.") from None
    for record in loop.records:
        on_epoch(record)
    progress.begin(stage, state, loop.records)
    try:
        while state.step < state.end:
            loop.step()
            progress.step(state, loop.meters)
            if state.step_in_epoch == 0:
                on_epoch(record := loop.end_epoch())
                progress.epoch(record)
            if state.step_in_epoch == 0 or store.checkpoint_due():
                store.save_checkpoint(loop.capture())
    finally:
        progress.end()
    result = loop.finish()
    store.finish(result)
    return result


class StageLoop:
    """A stage in training: `state` with all that a checkpoint holds beside it."""

    def __init__(self, stage: Stage, state: TrainState, settings: LoopSettings) -> None:
        self.stage, self.state, self.settings = stage, state, settings
        state.optimizer = self.optimizer = make_optimizer(state.model, stage.schedule)
        state.compression = stage.compressor.start(state)
        state.model.train()
        self.gradients = ObjectiveGradients(stage.objective, state)
        self.average = WeightAverage(settings.weight_average, state.model) if settings.weight_average else None
        self.meters = Meters(state.env.device)
        self.records: list[Record] = []
        self.seconds = self.epoch_start = 0.0
        self.best: dict[str, Tensor] | None = None
        self.best_score = -1.0

    def step(self) -> None:
        """One optimiser step: attack, loss, gradients, penalty, update, constraint."""
        started = time.monotonic()
        state = self.state
        epoch = state.epoch + state.step_in_epoch / state.steps_per_epoch
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.schedule.rate(epoch)
        x, y = state.batch()
        loss = self.gradients(x, y)
        self.stage.compressor.regularise(state)
        self.optimizer.step()
        self.stage.compressor.after_step(state)
        state.step += 1
        if self.average is not None:
            self.average.update(state.model)
        self.meters.add(loss, len(y))
        self.seconds += time.monotonic() - started

    def end_epoch(self) -> Record:
        """The epoch's record; the compressor's epoch hook; selection; whether the stage has an epoch more."""
        started = time.monotonic()
        stage, state = self.stage, self.state
        epoch = state.step // state.steps_per_epoch
        means = self.meters.means()  # waits for the device, so the time is the epoch's
        rate = self.meters.images / (self.seconds + time.monotonic() - started - self.epoch_start)
        if not math.isfinite(means["loss"] or 0.0):
            raise UserError(
                f"training diverged in epoch {epoch} of stage '{stage.name}' (loss {means['loss']}); "
                f"it learned at a rate of {stage.schedule.lr:g}; lower schedule.{stage.schedule_name}.lr or add "
                f"schedule.{stage.schedule_name}.warmup=1."
            )
        state.adversary.verify()
        stage.compressor.after_epoch(state)
        clean, robust = self._validate()
        self.seconds += time.monotonic() - started
        self.epoch_start = self.seconds
        record = {
            "event": "epoch",
            "stage": stage.name,
            "epoch": epoch,
            "epochs": max(stage.schedule.epochs, epoch),
            **means,
            "val_clean": clean,
            "val_robust": robust,
            "lr": stage.schedule.rate(epoch - 1 / state.steps_per_epoch),
            "images_per_second": round(rate, 1),
            "seconds": round(self.seconds, 2),
        }
        self.meters.reset()
        self.records.append(record)
        if self._goes_on():
            state.end += state.steps_per_epoch
        return record

    def finish(self) -> StageResult:
        """The stage's result: the best epoch's weights where one was chosen, else the final ones."""
        if self.best is not None:
            self.state.model.load_state_dict(self.best)
        else:
            finalise(self.state, self.stage.objective, self.stage.compressor, self.average)
        form = to_spec(form_of(self.state.model))
        return StageResult(self.state.model.state_dict(), form, self.records, self.seconds)

    def capture(self) -> dict[str, Any]:
        """A checkpoint: tensors, numbers and strings only."""
        return {
            "step": self.state.step,
            "end": self.state.end,
            "model": self.state.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "compression": compressor.capture(self.state.compression),
            "average": self.average and self.average.state(),
            "meters": self.meters.state(),
            "records": self.records,
            "seconds": self.seconds,
            "epoch_start": self.epoch_start,
            "best": self.best,
            "best_score": self.best_score,
        }

    def resume(self, saved: dict[str, Any]) -> None:
        """Put everything back to where the checkpoint left it."""
        self.state.step, self.state.end = saved["step"], saved["end"]
        self.state.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        compressor.restore(self.state.compression, saved["compression"])
        if self.average is not None:
            self.average.load(saved["average"])
        self.meters.load(saved["meters"])
        self.records = saved["records"]
        self.seconds, self.epoch_start = saved["seconds"], saved["epoch_start"]
        self.best, self.best_score = saved["best"], saved["best_score"]

    def _goes_on(self) -> bool:
        """Whether a stage at its end has another epoch: its adversarial loss still falls, its limit is not reached."""
        state = self.state
        if state.step < state.end:
            return False
        if state.step + state.steps_per_epoch > state.total_steps * (1 + self.stage.limit) * (1 + 1e-9):
            return False
        last = [record["adversarial_loss"] for record in self.records[-2:]]
        return len(last) == 2 and None not in last and last[1] < last[0]

    def _validate(self) -> tuple[float | None, float | None]:
        """Clean and robust accuracy of the weights as they would be finalised now; they are kept if best so far."""
        state, selection = self.state, self.settings.selection
        held_out = state.data.test if selection == "best_on_test" else state.data.val
        if not len(held_out):
            return None, None
        images = STATISTICS_IMAGES if selection != "last" else len(state.data.train) // 10  # for the log alone
        with finalised(state, self.stage.objective, self.stage.compressor, self.average, images):
            clean, robust = validation_accuracy(state, self.settings.validation_attack, held_out)
            score = clean if isinstance(self.stage.objective, Natural) else robust
            if selection != "last" and score > self.best_score:
                self.best_score = score
                self.best = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
        return clean, robust


def make_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """SGD with momentum, or Adam; weight decay on every parameter, as published."""
    fused = next(model.parameters()).is_cuda
    if schedule.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), schedule.lr, weight_decay=schedule.weight_decay, fused=fused)
    return torch.optim.SGD(
        model.parameters(), schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay, fused=fused
    )


def validation_accuracy(state: TrainState, attack: Attack, split: Split) -> tuple[float, float]:
    """Clean and robust accuracy of the present weights on `split`, in the training precision."""
    clean = robust = 0
    for start in range(0, len(split), VALIDATION_BATCH):
        y = split.labels[start : start + VALIDATION_BATCH]
        x = to_float(split.images[start : start + VALIDATION_BATCH]).contiguous(memory_format=state.env.memory_format)
        random = generator(state.env.device, state.seed, "validation", start)
        x_adv = state.adversary(attack, x, y, random)
        with torch.no_grad():
            correct = state.adversary.snapshot(x).argmax(1) == y
            clean += int(correct.sum())
            robust += int((correct & (state.adversary.snapshot(x_adv).argmax(1) == y)).sum())
    return clean / len(split), robust / len(split)
