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
    t: TrainState,
    settings: LoopSettings,
    store: StageStore,
    on_epoch: Callable[[Record], None],
    progress: Progress,
) -> StageResult:
    """Train `t.model` through `stage`, from its checkpoint if it has one; the model ends inside the constraint.

    Saves a checkpoint every minute and at each epoch's end, hands a record of each finished epoch to `on_epoch` (those
    before the checkpoint too), and raises UserError when the loss stops being finite.
    """
    t.optimizer = make_optimizer(t.model, stage.schedule)
    stage.compressor.setup(t)
    progressed = _Progressed.restore(stage, t, settings, store.checkpoint(t.env.device))
    for record in progressed.records:
        on_epoch(record)
    progress.begin(stage.name, t)
    gradients = _Gradients(stage.objective, t)
    t.model.train()
    saved = time.monotonic()
    try:
        while t.step < t.end:
            _step(stage, t, gradients, progressed)
            progress.step(t, progressed.meters)
            if t.step_in_epoch == 0:
                record = _end_epoch(stage, t, settings, progressed)
                on_epoch(record)
                if _goes_on(stage, t, progressed.records):
                    t.end += t.steps_per_epoch
            if t.step_in_epoch == 0 or time.monotonic() - saved > CHECKPOINT_SECONDS:
                store.save_checkpoint(progressed.capture(stage, t))
                saved = time.monotonic()
    finally:
        progress.end()
    if progressed.best is not None:
        t.model.load_state_dict(progressed.best)
    else:
        ship(t, stage.objective, stage.compressor, progressed.average)
    result = StageResult(t.model.state_dict(), to_spec(form_of(t.model)), progressed.records, progressed.seconds)
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

    def __init__(self, objective: Objective, t: TrainState) -> None:
        self.objective, self.t = objective, t
        self.now: Objective | None = None

    def __call__(self, x: Tensor, y: Tensor) -> Loss:
        now = self.objective.at(self.t)
        if self.now is None or now != self.now:
            self.now, self.fill = now, make_gradients(now, self.t)
        return self.fill(x, y)


def _goes_on(stage: Stage, t: TrainState, records: list[Record]) -> bool:
    """Whether a stage at its end has another epoch: its adversarial loss still falls, and the limit is not reached."""
    if t.step < t.end or t.step + t.steps_per_epoch > t.total_steps * (1 + stage.limit) * (1 + 1e-9):
        return False
    last = [record["adversarial_loss"] for record in records[-2:]]
    return len(last) == 2 and None not in last and last[1] < last[0]


def _step(stage: Stage, t: TrainState, gradients: Gradients, progressed: "_Progressed") -> None:
    """One optimiser step: attack, loss, gradients, penalty, update, constraint."""
    started = time.monotonic()
    epoch = t.epoch + t.step_in_epoch / t.steps_per_epoch
    for group in t.optimizer.param_groups:
        group["lr"] = stage.schedule.rate(epoch)
    x, y = t.batch()
    loss = gradients(x, y)
    stage.compressor.regularise(t)
    t.optimizer.step()
    stage.compressor.after_step(t)
    t.step += 1
    if progressed.average is not None:
        progressed.average.update(t.model)
    progressed.meters.add(loss, len(y))
    progressed.seconds += time.monotonic() - started


def _end_epoch(stage: Stage, t: TrainState, settings: LoopSettings, progressed: "_Progressed") -> Record:
    """The epoch's record; the compressor's epoch hook; selection."""
    started = time.monotonic()
    epoch = t.step // t.steps_per_epoch
    means = progressed.meters.means()  # waits for the device, so the time is the epoch's
    rate = progressed.meters.images / (progressed.seconds + time.monotonic() - started - progressed.epoch_start)
    if not math.isfinite(means["loss"]):
        raise UserError(
            f"training diverged in epoch {epoch} of stage '{stage.name}' (loss {means['loss']}); "
            f"it learned at a rate of {stage.schedule.lr:g}; lower schedule.{stage.schedule_name}.lr or add "
            f"schedule.{stage.schedule_name}.warmup=1."
        )
    t.adversary.verify()
    stage.compressor.after_epoch(t)
    clean, robust, state = _validate(stage, t, settings, progressed)
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
        "lr": stage.schedule.rate(epoch - 1 / t.steps_per_epoch),
        "images_per_second": round(rate, 1),
        "seconds": round(progressed.seconds, 2),
    }
    progressed.meters.reset()
    progressed.records.append(record)
    if state is not None:
        progressed.best = state
    return record


def _validate(
    stage: Stage, t: TrainState, settings: LoopSettings, progressed: "_Progressed"
) -> tuple[float | None, float | None, dict[str, Tensor] | None]:
    """Clean and robust accuracy of the weights as they would ship; their state dict if it is to be kept as the best."""
    held_out = t.data.test if settings.selection == "best_on_test" else t.data.val
    if not len(held_out):
        return None, None, None
    images = STATISTICS_IMAGES if settings.selection != "last" else len(t.data.train) // 10  # for the log alone
    with shipped(t, stage.objective, stage.compressor, progressed.average, images):
        clean, robust = validation_accuracy(t, settings.validation_attack, held_out)
        score = clean if isinstance(stage.objective, Natural) else robust
        if score <= progressed.best_score:
            return clean, robust, None
        progressed.best_score = score
        if settings.selection == "last":
            return clean, robust, None
        return clean, robust, {name: tensor.clone() for name, tensor in t.model.state_dict().items()}


def validation_accuracy(t: TrainState, attack: Attack, split: Split) -> tuple[float, float]:
    """Clean and robust accuracy of the present weights on `split`, in the training precision."""
    clean = robust = 0
    for start in range(0, len(split), VALIDATION_BATCH):
        y = split.labels[start : start + VALIDATION_BATCH]
        x = to_float(split.images[start : start + VALIDATION_BATCH]).contiguous(memory_format=t.env.memory_format)
        random = generator(t.env.device, t.seed, "validation", start)
        x_adv = t.adversary(attack, x, y, random)
        with torch.no_grad():
            right = t.adversary.snapshot(x).argmax(1) == y
            clean += int(right.sum())
            robust += int((right & (t.adversary.snapshot(x_adv).argmax(1) == y)).sum())
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

    def load(self, state: dict[str, Any]) -> None:
        self.sums.copy_(state["sums"])
        self.steps, self.images, self.measured = state["steps"], state["images"], state["measured"]


class _Progressed:
    """What a stage has come to: all that a checkpoint holds beside the model."""

    def __init__(self, t: TrainState, settings: LoopSettings) -> None:
        tau = settings.weight_average
        self.average = WeightAverage(tau, t.model) if tau else None
        self.meters = Meters(t.env.device)
        self.records: list[Record] = []
        self.seconds = self.epoch_start = 0.0
        self.best: dict[str, Tensor] | None = None
        self.best_score = -1.0

    def capture(self, stage: Stage, t: TrainState) -> dict[str, Any]:
        return {
            "step": t.step,
            "model": t.model.state_dict(),
            "optimizer": t.optimizer.state_dict(),
            "compressor": stage.compressor.state_dict(),
            "meters": self.meters.state(),
            "records": self.records,
            "seconds": self.seconds,
            "epoch_start": self.epoch_start,
            "best": self.best,
            "best_score": self.best_score,
            "end": t.end,
            "average": self.average and self.average.state(),
        }

    @classmethod
    def restore(
        cls, stage: Stage, t: TrainState, settings: LoopSettings, state: dict[str, Any] | None
    ) -> "_Progressed":
        """Put model, optimiser and compressor back to where the checkpoint left them; at the start without one."""
        progressed = cls(t, settings)
        if state is None:
            return progressed
        t.step, t.end = state["step"], state["end"]
        t.model.load_state_dict(state["model"])
        t.optimizer.load_state_dict(state["optimizer"])
        stage.compressor.load_state_dict(state["compressor"])
        progressed.meters.load(state["meters"])
        progressed.records = state["records"]
        progressed.seconds, progressed.epoch_start = state["seconds"], state["epoch_start"]
        progressed.best, progressed.best_score = state["best"], state["best_score"]
        if progressed.average is not None:
            progressed.average.load(state["average"])
        return progressed
