"""The one training loop. A stage brings the objective and the compressor; this brings batches, steps and resumption."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robcomp.attacks import Attack
from robcomp.data import Split, to_float
from robcomp.errors import UserError
from robcomp.models.parameterisation import form_of, to_spec
from robcomp.progress import Progress
from robcomp.seeding import generator
from robcomp.trainers.loop.checkpoint import StageResult, StageStore
from robcomp.trainers.loop.finalise import STATISTICS_IMAGES, WeightAverage, ship, shipped
from robcomp.trainers.loop.graphs import Gradients, make_gradients
from robcomp.trainers.objectives import Loss, Natural, Objective
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

CHECKPOINT_SECONDS = 60.0
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
    progress: Progress,
) -> StageResult:
    """Train `state.model` through `stage`, from its checkpoint if it has one; the model ends inside the constraint.

    Saves a checkpoint every minute and at each epoch's end, hands a record of each finished epoch to `on_epoch` (those
    before the checkpoint too), and raises UserError when the loss stops being finite.
    """
    state.optimizer = make_optimizer(state.model, stage.schedule)
    stage.compressor.setup(state)
    progressed = _Progressed.restore(stage, state, settings, store.checkpoint(state.env.device))
    for record in progressed.records:
        on_epoch(record)
    progress.begin(stage.name, state)
    gradients = _Gradients(stage.objective, state)
    state.model.train()
    saved = time.monotonic()
    try:
        while state.step < state.end:
            _step(stage, state, gradients, progressed)
            progress.step(state, progressed.meters)
            if state.step_in_epoch == 0:
                record = _end_epoch(stage, state, settings, progressed)
                on_epoch(record)
                if _goes_on(stage, state, progressed.records):
                    state.end += state.steps_per_epoch
            if state.step_in_epoch == 0 or time.monotonic() - saved > CHECKPOINT_SECONDS:
                store.save_checkpoint(progressed.capture(stage, state))
                saved = time.monotonic()
    finally:
        progress.end()
    if progressed.best is not None:
        state.model.load_state_dict(progressed.best)
    else:
        ship(state, stage.objective, stage.compressor, progressed.average)
    result = StageResult(
        state.model.state_dict(), to_spec(form_of(state.model)), progressed.records, progressed.seconds
    )
    store.finish(result)
    return result


def make_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """SGD with momentum, or Adam; weight decay on every parameter, as published."""
    fused = next(model.parameters()).is_cuda
    if schedule.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), schedule.lr, weight_decay=schedule.weight_decay, fused=fused)
    return torch.optim.SGD(
        model.parameters(), schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay, fused=fused
    )


class _Gradients:
    """The gradients of the objective as it stands at each step, made anew (a CUDA graph recorded) when it changes."""

    def __init__(self, objective: Objective, state: TrainState) -> None:
        self.objective, self.state = objective, state
        self.now: Objective | None = None

    def __call__(self, x: Tensor, y: Tensor) -> Loss:
        now = self.objective.at(self.state)
        if self.now is None or now != self.now:
            self.now, self.fill = now, make_gradients(now, self.state)
        return self.fill(x, y)


def _goes_on(stage: Stage, state: TrainState, records: list[Record]) -> bool:
    """Whether a stage at its end has another epoch: its adversarial loss still falls, and the limit is not reached."""
    if state.step < state.end or state.step + state.steps_per_epoch > state.total_steps * (1 + stage.limit) * (
        1 + 1e-9
    ):
        return False
    last = [record["adversarial_loss"] for record in records[-2:]]
    return len(last) == 2 and None not in last and last[1] < last[0]


def _step(stage: Stage, state: TrainState, gradients: Gradients, progressed: "_Progressed") -> None:
    """One optimiser step: attack, loss, gradients, penalty, update, constraint."""
    started = time.monotonic()
    epoch = state.epoch + state.step_in_epoch / state.steps_per_epoch
    for group in state.optimizer.param_groups:
        group["lr"] = stage.schedule.rate(epoch)
    x, y = state.batch()
    loss = gradients(x, y)
    stage.compressor.regularise(state)
    state.optimizer.step()
    stage.compressor.after_step(state)
    state.step += 1
    if progressed.average is not None:
        progressed.average.update(state.model)
    progressed.meters.add(loss, len(y))
    progressed.seconds += time.monotonic() - started


def _end_epoch(stage: Stage, state: TrainState, settings: LoopSettings, progressed: "_Progressed") -> Record:
    """The epoch's record; the compressor's epoch hook; selection."""
    started = time.monotonic()
    epoch = state.step // state.steps_per_epoch
    means = progressed.meters.means()  # waits for the device, so the time is the epoch's
    rate = progressed.meters.images / (progressed.seconds + time.monotonic() - started - progressed.epoch_start)
    if not math.isfinite(means["loss"]):
        raise UserError(
            f"training diverged in epoch {epoch} of stage '{stage.name}' (loss {means['loss']}); "
            f"it learned at a rate of {stage.schedule.lr:g}; lower schedule.{stage.schedule_name}.lr or add "
            f"schedule.{stage.schedule_name}.warmup=1."
        )
    state.adversary.verify()
    stage.compressor.after_epoch(state)
    clean, robust, best = _validate(stage, state, settings, progressed)
    progressed.seconds += time.monotonic() - started
    progressed.epoch_start = progressed.seconds
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
        "seconds": round(progressed.seconds, 2),
    }
    progressed.meters.reset()
    progressed.records.append(record)
    if best is not None:
        progressed.best = best
    return record


def _validate(
    stage: Stage, state: TrainState, settings: LoopSettings, progressed: "_Progressed"
) -> tuple[float | None, float | None, dict[str, Tensor] | None]:
    """Clean and robust accuracy of the weights as they would ship; their state dict if it is to be kept as the best."""
    held_out = state.data.test if settings.selection == "best_on_test" else state.data.val
    if not len(held_out):
        return None, None, None
    images = STATISTICS_IMAGES if settings.selection != "last" else len(state.data.train) // 10  # for the log alone
    with shipped(state, stage.objective, stage.compressor, progressed.average, images):
        clean, robust = validation_accuracy(state, settings.validation_attack, held_out)
        score = clean if isinstance(stage.objective, Natural) else robust
        if score <= progressed.best_score:
            return clean, robust, None
        progressed.best_score = score
        if settings.selection == "last":
            return clean, robust, None
        return clean, robust, {name: tensor.clone() for name, tensor in state.model.state_dict().items()}


def validation_accuracy(state: TrainState, attack: Attack, split: Split) -> tuple[float, float]:
    """Clean and robust accuracy of the present weights on `split`, in the training precision."""
    clean = robust = 0
    for start in range(0, len(split), VALIDATION_BATCH):
        y = split.labels[start : start + VALIDATION_BATCH]
        x = to_float(split.images[start : start + VALIDATION_BATCH]).contiguous(memory_format=state.env.memory_format)
        random = generator(state.env.device, state.seed, "validation", start)
        x_adv = state.adversary(attack, x, y, random)
        with torch.no_grad():
            right = state.adversary.snapshot(x).argmax(1) == y
            clean += int(right.sum())
            robust += int((right & (state.adversary.snapshot(x_adv).argmax(1) == y)).sum())
    return clean / len(split), robust / len(split)


class Meters:
    """Sums over an epoch, kept on the device; reading them is the only host synchronisation."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, device=device, dtype=torch.float64)  # two losses, right clean, right under attack
        self.reset()

    def reset(self) -> None:
        self.sums.zero_()
        self.steps = self.images = 0
        self.measured = [0, 0, 0]  # steps with an adversarial loss; images seen clean, and under attack

    def add(self, loss: Loss, images: int) -> None:
        zero, parts = torch.zeros((), device=self.sums.device), (loss.adversarial, loss.clean, loss.robust)
        found = [zero if part is None else part.double() for part in parts]
        self.sums += torch.stack([loss.value.detach().double(), *found])
        counts = zip(self.measured, parts, (1, images, images), strict=True)
        self.measured = [count + (0 if part is None else more) for count, part, more in counts]
        self.steps += 1
        self.images += images

    def means(self) -> dict[str, float | None]:
        """Mean losses, and the fractions right in the batches as trained on (None where not measured)."""
        loss, *sums = self.sums.tolist()
        known = zip(sums, self.measured, strict=True)
        adversarial, clean, robust = (value / count if count else None for value, count in known)
        return {"loss": loss / self.steps, "adversarial_loss": adversarial, "clean": clean, "robust": robust}

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums, "steps": self.steps, "images": self.images, "measured": self.measured}

    def load(self, saved: dict[str, Any]) -> None:
        self.sums.copy_(saved["sums"])
        self.steps, self.images, self.measured = saved["steps"], saved["images"], saved["measured"]


class _Progressed:
    """What a stage has come to: all that a checkpoint holds beside the model."""

    def __init__(self, state: TrainState, settings: LoopSettings) -> None:
        tau = settings.weight_average
        self.average = WeightAverage(tau, state.model) if tau else None
        self.meters = Meters(state.env.device)
        self.records: list[Record] = []
        self.seconds = self.epoch_start = 0.0
        self.best: dict[str, Tensor] | None = None
        self.best_score = -1.0

    def capture(self, stage: Stage, state: TrainState) -> dict[str, Any]:
        return {
            "step": state.step,
            "model": state.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "compressor": stage.compressor.state_dict(),
            "meters": self.meters.state(),
            "records": self.records,
            "seconds": self.seconds,
            "epoch_start": self.epoch_start,
            "best": self.best,
            "best_score": self.best_score,
            "end": state.end,
            "average": self.average and self.average.state(),
        }

    @classmethod
    def restore(
        cls, stage: Stage, state: TrainState, settings: LoopSettings, saved: dict[str, Any] | None
    ) -> "_Progressed":
        """Put model, optimiser and compressor back to where the checkpoint left them; at the start without one."""
        progressed = cls(state, settings)
        if saved is None:
            return progressed
        state.step, state.end = saved["step"], saved["end"]
        state.model.load_state_dict(saved["model"])
        state.optimizer.load_state_dict(saved["optimizer"])
        stage.compressor.load_state_dict(saved["compressor"])
        progressed.meters.load(saved["meters"])
        progressed.records = saved["records"]
        progressed.seconds, progressed.epoch_start = saved["seconds"], saved["epoch_start"]
        progressed.best, progressed.best_score = saved["best"], saved["best_score"]
        if progressed.average is not None:
            progressed.average.load(saved["average"])
        return progressed
