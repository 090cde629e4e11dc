"""How fast this machine trains and attacks a network: a few steps and a short attack, timed."""

import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from robcomp.attacks.pgd import PGD
from robcomp.data import Split
from robcomp.evaluation.evaluator import Evaluator
from robcomp.hardware import exact_float32
from robcomp.models.parameterisation import prunable_parameters
from robcomp.runs.train import Run
from robcomp.trainers.loop.stage_loop import StageLoop
from robcomp.trainers.stage import Stage

ENOUGH, LIMIT = 1.0, 6.0  # seconds of steps that are enough once there are two, and of a step that is enough by itself
STEPS = 20  # at most
FEW = 16  # images of a first, short attack
ATTACK = PGD(1e-6, steps=5)  # so small that no image is fooled and drops out


@dataclass(frozen=True)
class Pace:
    """Seconds a pass of an image through the network, the rest of a step included, and bytes of memory at the peak."""

    seconds: float
    memory: int


def training(run: Run, stage: Stage) -> Pace:
    """Some steps of the last epoch of `stage`, where its attack is the strongest, from untrained weights."""
    state = run.begin(stage, run.spec.build())
    if stage.support:
        masks = prunable_parameters(state.model).items()
        state.support = {name: torch.ones_like(held, dtype=torch.bool) for name, held in masks}
    peak = _Peak(run.env.device)
    loop = StageLoop(stage, state, run.settings)
    state.step = first = max(state.total_steps - state.steps_per_epoch, 0)
    times: list[float] = []

    def step() -> None:
        loop.step()
        state.step = first + (state.step - first) % state.steps_per_epoch

    with exact_float32():
        while len(times) < STEPS and not (sum(times) > LIMIT or (len(times) > 2 and sum(times[1:]) > ENOUGH)):
            times.append(_timed(step, run.env.device))
    settled = sorted(times[1:] or times)  # the first one is slower
    passes = stage.objective.passes(max(stage.schedule.epochs - 1, 0), stage.schedule.epochs) * state.batch_size
    return Pace(settled[len(settled) // 2] / passes, peak.bytes())


def evaluation(run: Run, batch_size: int) -> Pace:
    """A short PGD on test images, on an untrained network whose own answers stand for the labels."""
    peak = _Peak(run.env.device)
    model = run.spec.build().to(run.env.device).eval()
    seconds = _attacked(model, run, FEW)  # once for what is slow the first time
    count = round(ENOUGH / max(ATTACK.cost * seconds, 1e-9))
    if count > FEW:
        seconds = _attacked(model, run, min(count, batch_size, len(run.data.test)))
    return Pace(seconds, peak.bytes())


def _attacked(model: nn.Module, run: Run, count: int) -> float:
    """Seconds a pass of an image, of an attack on `count` of them."""
    images = run.data.test.images[:count].to(run.env.device)
    with Evaluator(model, Split(images, torch.zeros(len(images), dtype=torch.int64)), 0, count) as evaluator:
        labels = torch.from_numpy(evaluator.answers).to(images.device)
        x, _ = evaluator.images(torch.arange(len(images)).numpy())
        seconds = _timed(lambda: ATTACK(evaluator.view, x, labels, seed=0), run.env.device)
    return seconds / (ATTACK.cost * len(images))


def _timed(do: Callable[[], object], device: torch.device) -> float:
    """Seconds until it is done, on the device too."""
    began = time.monotonic()
    do()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - began


class _Peak:
    """The most memory in use from now on: of the GPU where the device is one, elsewhere of this process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):  # Linux forgets the peak so far; elsewhere it is that since the start
                Path("/proc/self/clear_refs").write_text("5")

    def bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.device)
        with suppress(OSError, ValueError, StopIteration):
            lines = Path("/proc/self/status").read_text().splitlines()
            return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
